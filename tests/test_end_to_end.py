"""Whole audits of checkpoints of many kinds, in a process of their own, against plain torch.

Every case writes the files that a user has, runs the command in their folder, and compares loss and
top eigenvalue of the report with autograd in double precision and SciPy's Lanczos.
"""

from __future__ import annotations

import copy
import json
import os
import re
import runpy
import subprocess
import sys
import warnings
from argparse import Namespace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
import yaml
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from typer.testing import CliRunner

import landscape
from landscape.cli import app

MEASURES = ["--measures", "train-loss,hessian-top-eigenvalue"]


def command(folder, *arguments):
    """Runs ``python -m landscape`` in a folder; what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "landscape", *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # What it will cost is told where it takes long, as on a busy machine.
    assert [line for line in done.stderr.splitlines() if "passes, about" not in line] == []
    return done.stdout


def report_of(folder):
    return json.loads((folder / "landscape-report" / "report.json").read_text())


def config_of(folder):
    return yaml.safe_load((folder / "landscape-report" / "config.yaml").read_text())


def values_of(report):
    return {row["measure"]: row["value"] for row in report["results"]}


def truth(model, loss):
    """Loss and algebraically largest eigenvalue of its Hessian in the trainable weights."""
    model = copy.deepcopy(model).double().eval()
    weights = [weight for weight in model.parameters() if weight.requires_grad]

    def flat(gradients):
        return torch.cat([gradient.reshape(-1) for gradient in gradients])

    with sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no second derivative
        value = loss(model)
        gradient = flat(torch.autograd.grad(value, weights, create_graph=True))

        def product(vector):
            along = gradient @ torch.from_numpy(vector.reshape(-1))
            return flat(torch.autograd.grad(along, weights, retain_graph=True)).numpy()

        size = len(gradient)
        operator = LinearOperator((size, size), matvec=product, dtype=np.float64)
        start = np.random.default_rng(0).standard_normal(size)
        (top,) = eigsh(operator, k=1, which="LA", return_eigenvectors=False, v0=start)
    return float(value.detach()), float(top)


def of_file(folder, name, attribute):
    """What the user's file defines."""
    return runpy.run_path(str(folder / name))[attribute]


def curved(model, scale=0.6, seed=0):
    """Weights that are large enough to be curved."""
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(scale * torch.randn(weight.shape, generator=source))
    return model.eval()


def prefixed(state, prefix):
    return {prefix + name: tensor for name, tensor in state.items()}


def classes(count=20, features=4, kinds=3):
    source = torch.Generator().manual_seed(1)
    inputs = torch.randn(count, features, generator=source)
    return inputs, torch.randint(0, kinds, (count,), generator=source)


def classified(inputs, labels):
    return lambda model: functional.cross_entropy(model(inputs.double()), labels)


# --- models of one's own ----------------------------------------------------------------------

HELPERS = """
from torch import nn

def block(width):
    return nn.Linear(4, width), nn.Tanh()
"""
NET = """
from torch import nn

def build(width: int = 5):
    from helpers import block  # while the model is made

    return nn.Sequential(*block(width), nn.Linear(width, 3))
"""


def net(width=5):
    return nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 3))


def net_in(folder):
    """The user's files: a model that imports its neighbour, and data; the options for them."""
    (folder / "utils.py").write_text(NET)
    (folder / "helpers.py").write_text(HELPERS)
    inputs, labels = classes()
    np.savez(folder / "train.npz", x=inputs.numpy(), y=labels.numpy())
    given = ["--model", "utils.py:build", "--objective", "cross_entropy", "--data", "train.npz"]
    return given, classified(inputs, labels)


def a_plain_state_with_a_width(folder):
    given, loss = net_in(folder)
    model = curved(net(width=7))
    torch.save(model.state_dict(), folder / "w.pt")
    return ["w.pt", *given, "--arg", "width=7"], model, loss


def a_training_checkpoint_with_prefixes(folder):
    given, loss = net_in(folder)
    model = curved(net())
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    loss(model.double()).backward()
    optimizer.step()
    state = prefixed(model.float().state_dict(), "module._orig_mod.")
    content = {"epoch": 3, "args": Namespace(lr=0.01), "optimizer": optimizer.state_dict()}
    torch.save({**content, "model": state}, folder / "last.pt")
    return ["last.pt", *given], model, loss


def averaged_weights_and_weight_decay(folder):
    given, data_loss = net_in(folder)
    model = curved(net())
    content = {"model": curved(net(), seed=5).state_dict(), "ema": model.state_dict()}
    torch.save(content, folder / "last.pt")

    def loss(model):
        squares = sum(weight.square().sum() for weight in model.parameters())
        return data_loss(model) + 0.1 / 2 * squares

    return ["last.pt", *given, "--ema", "--weight-decay", "0.1"], model, loss


def half_precision_in_a_distributed_checkpoint(folder):
    from torch.distributed import checkpoint

    given, loss = net_in(folder)
    with (folder / "utils.py").open("a") as file:
        file.write("\ndef half():\n    return build().bfloat16()\n")
    model = curved(net()).bfloat16()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        content = {"model": model.state_dict(), "step": 3}
        checkpoint.save(content, checkpoint_id=folder / "step3", no_dist=True)
    given[1] = "utils.py:half"
    return ["step3", *given], model, loss


def a_lightning_checkpoint_with_hyper_parameters(folder):
    lightning = pytest.importorskip("lightning.pytorch")

    class Module(lightning.LightningModule):
        def __init__(self, args, widths):  # noqa: ARG002 - kept as hyper-parameters
            super().__init__()
            self.save_hyperparameters()
            self.net = net()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)

    given, loss = net_in(folder)
    module = Module(Namespace(data=Path("data")), [5])
    curved(module.net)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = lightning.Trainer(accelerator="cpu", logger=False, default_root_dir=folder)
        trainer.strategy.connect(module)
        trainer.save_checkpoint(folder / "epoch=3.ckpt")
    frame = pd.DataFrame(classes()[0].numpy(), columns=list("abcd"))
    frame.assign(label=classes()[1].numpy()).to_csv(folder / "train.csv", index=False)
    given[-1] = "train.csv"
    return ["epoch=3.ckpt", *given], module.net, loss


RECURRENT = """
import torch
from torch import nn

class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(6, 4)
        self.lstm = nn.LSTM(4, 5, batch_first=True)
        self.head = nn.Linear(5, 3)

    def forward(self, tokens):
        states, _ = self.lstm(self.embedding(tokens))
        return self.head(states[:, -1])
"""
BATCHES = """
import torch

def data():
    source = torch.Generator().manual_seed(2)
    tokens = torch.randint(0, 6, (11, 5), generator=source)
    labels = torch.randint(0, 3, (11,), generator=source)
    return list(zip(tokens.split(4), labels.split(4)))
"""


def an_lstm_in_a_file_called_viz(folder):
    (folder / "viz.py").write_text(RECURRENT)
    (folder / "measures.py").write_text(BATCHES)
    model = curved(of_file(folder, "viz.py", "Reader")())
    batches = of_file(folder, "measures.py", "data")()
    tokens, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    safetensors.torch.save_file(model.state_dict(), folder / "w.safetensors")
    given = ["--model", "viz.py:Reader", "--objective", "cross_entropy"]
    return (
        ["w.safetensors", *given, "--data", "measures.py:data"],
        model,
        lambda model: functional.cross_entropy(model(tokens), labels),
    )


TWO_INPUTS = """
import torch
from torch import nn

import landscape

class Matcher(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.left, self.right = nn.Linear(3, width), nn.Linear(2, width)

    def forward(self, left, right):
        return {"logits": (self.left(left).tanh() * self.right(right).tanh()).sum(1)}

def batches():
    source = torch.Generator().manual_seed(3)
    for size in (6, 4, 1):
        left = torch.randn(size, 3, generator=source)
        right = torch.randn(size, 2, generator=source)
        yield {"right": right, "left": left, "labels": (left[:, 0] > 0).float()}

def task(width=2):
    return landscape.Task(model=lambda: Matcher(width), objective="bce", train=batches)
"""


def a_task_of_dictionaries_with_two_inputs(folder):
    (folder / "task.py").write_text(TWO_INPUTS)
    with torch.random.fork_rng():
        torch.manual_seed(0)  # of weights where no checkpoint is given
        model = of_file(folder, "task.py", "Matcher")(4)
    batches = list(of_file(folder, "task.py", "batches")())
    left, right, labels = (
        torch.cat([batch[key] for batch in batches]).double() for key in ("left", "right", "labels")
    )

    def loss(model):
        logits = model(left, right)["logits"]
        return functional.softplus(torch.where(labels > 0, -logits, logits)).mean()

    return ["--task", "task.py:task", "--arg", "width=4"], model, loss


PHYSICS = """
import torch
from torch import nn

def build():
    return nn.Sequential(nn.Linear(1, 6), nn.Tanh(), nn.Linear(6, 1))

points = [torch.linspace(0, 1, 7)[:, None], torch.linspace(1, 2, 4)[:, None]]

def residual(model, x):
    x = x.detach().requires_grad_()
    u = model(x)
    (slope,) = torch.autograd.grad(u.sum(), x, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), x, create_graph=True)
    return (bend + u).square()[:, 0]
"""


def a_loss_of_derivatives_by_the_inputs(folder):
    (folder / "pinn.py").write_text(PHYSICS)
    model = curved(of_file(folder, "pinn.py", "build")(), 1.0)
    torch.save(model.state_dict(), folder / "w.pt")
    points = torch.cat(of_file(folder, "pinn.py", "points")).double()

    def loss(model):  # u'' of a net with one tanh layer, in closed form
        bend = model[0].weight[:, 0].square() * model[2].weight[0]
        heights = model[0](points).tanh()
        second = (-2 * heights * (1 - heights.square())) @ bend
        return (second + model(points)[:, 0]).square().mean()

    names = ["pinn.py:build", "--objective", "pinn.py:residual", "--data", "pinn.py:points"]
    return ["w.pt", "--model", *names], model, loss


TRANSFORMER = """
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

class Net(nn.Module):
    def __init__(self, saving: bool = True):
        super().__init__()
        self.saving = saving
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(4, 2, 6, batch_first=True, activation="gelu")
            for _ in range(2)
        )
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        for layer, reentrant in zip(self.layers, (True, False)):
            x = checkpoint(layer, x, use_reentrant=reentrant) if self.saving else layer(x)
        return self.head(x.mean(1))
"""


def a_transformer_with_both_kinds_of_activation_checkpoints(folder):
    (folder / "net.py").write_text(TRANSFORMER)
    model = curved(of_file(folder, "net.py", "Net")(saving=False))
    torch.save(model.state_dict(), folder / "w.pt")
    inputs, labels = classes(10, 12)
    inputs = inputs.reshape(10, 3, 4)
    np.savez(folder / "train.npz", x=inputs.numpy(), y=labels.numpy())
    given = ["--model", "net.py:Net", "--objective", "cross_entropy", "--data", "train.npz"]
    return ["w.pt", *given], model, classified(inputs, labels)


# --- directories of Hugging Face --------------------------------------------------------------

WORDS = ["the", "cat", "dog", "sat", "ran", "on", "a", "mat", "far", "away", "and", "came", "back"]
TEXTS = ["the cat sat on the mat", "a dog ran", "the dog came back and sat on a mat", "far away"]


def tokenizer_in(folder, **special):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = ["[UNK]", *special.values(), *WORDS]
    words = Tokenizer(models.WordLevel({word: at for at, word in enumerate(names)}, "[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", **special).save_pretrained(
        folder
    )
    return [torch.tensor([[names.index(word) for word in text.split()]]) for text in TEXTS]


def gpt2_in(folder):
    """A tied model in shards, with tokenizer; the model and its loss text by text, unpadded."""
    transformers = pytest.importorskip("transformers")
    sizes = {"n_positions": 16, "n_embd": 8, "n_layer": 2, "n_head": 2}
    special = {"bos_token_id": 1, "eos_token_id": 1}
    config = transformers.GPT2Config(vocab_size=2 + len(WORDS), **sizes, **special)
    model = curved(transformers.GPT2LMHeadModel(config), 0.3)
    model.save_pretrained(folder / "gpt2", max_shard_size="3KB")
    assert (folder / "gpt2" / "model.safetensors.index.json").is_file()
    texts = tokenizer_in(folder / "gpt2", eos_token="<end>")
    lines = [json.dumps({"id": at, "text": text}) for at, text in enumerate(TEXTS)]
    (folder / "train.jsonl").write_text("\n".join(lines))

    def loss(model):
        parts = [
            functional.cross_entropy(model(ids).logits[0, :-1], ids[0, 1:], reduction="sum")
            for ids in texts
        ]
        return sum(parts) / sum(ids.shape[1] - 1 for ids in texts)

    return model, loss


def a_sharded_gpt2_with_tied_weights(folder):
    return ["--model", "hf:gpt2", "--data", "train.jsonl"], *gpt2_in(folder)


def a_lora_adapter_on_a_directory(folder):
    peft = pytest.importorskip("peft")
    base, loss = gpt2_in(folder)
    config = peft.LoraConfig(
        r=2, target_modules=["c_attn"], fan_in_fan_out=True, task_type="CAUSAL_LM"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(base, config)
    torch.manual_seed(0)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            nn.init.normal_(weight, std=0.5)
    model.save_pretrained(folder / "adapter")
    return ["adapter", "--model", "hf:gpt2", "--data", "train.jsonl"], model, loss


def a_bert_classifier(folder):
    transformers = pytest.importorskip("transformers")
    kinds = {0: "sits", 1: "moves", 2: "neither"}
    config = transformers.BertConfig(
        vocab_size=3 + len(WORDS),
        hidden_size=8,
        intermediate_size=12,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=16,
        id2label=kinds,
        label2id={name: number for number, name in kinds.items()},
    )
    model = curved(transformers.BertForSequenceClassification(config), 0.4)
    model.save_pretrained(folder / "bert")
    texts = tokenizer_in(folder / "bert", pad_token="[PAD]", mask_token="[MASK]")
    labels = [0, 1, 0, 2]
    frame = pd.DataFrame({"text": TEXTS, "label": [kinds[label] for label in labels]})
    frame.to_csv(folder / "train.csv", index=False)

    def loss(model):
        logits = torch.cat([model(ids).logits for ids in texts])
        return functional.cross_entropy(logits, torch.tensor(labels))

    return ["--model", "hf:bert", "--data", "train.csv"], model, loss


def a_vision_transformer(folder):
    image = pytest.importorskip("PIL.Image")
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        image_size=8,
        patch_size=4,
        hidden_size=8,
        intermediate_size=12,
        num_hidden_layers=1,
        num_attention_heads=2,
        id2label={0: "dark", 1: "bright"},
        label2id={"dark": 0, "bright": 1},
    )
    model = curved(transformers.ViTForImageClassification(config), 0.4)
    model.save_pretrained(folder / "vit")
    settings = {"image_processor_type": "ViTImageProcessor", "size": {"height": 8, "width": 8}}
    normal = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.25, 1.0]}
    (folder / "vit" / "preprocessor_config.json").write_text(json.dumps({**settings, **normal}))
    pixels = np.random.default_rng(0).integers(0, 128, (6, 8, 8, 3), dtype=np.uint8)
    pixels[3:] += 100
    for at, picture in enumerate(pixels):
        place = folder / "images" / ("dark" if at < 3 else "bright")
        place.mkdir(parents=True, exist_ok=True)
        image.fromarray(picture).save(place / f"{at}.png")
    scaled = (pixels / 255 - np.array(normal["image_mean"])) / np.array(normal["image_std"])
    inputs = torch.from_numpy(scaled).permute(0, 3, 1, 2)
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    return (
        ["--model", "hf:vit", "--data", "images"],
        model,
        lambda model: functional.cross_entropy(model(inputs).logits, labels),
    )


CASES = [
    a_training_checkpoint_with_prefixes,
    averaged_weights_and_weight_decay,
    half_precision_in_a_distributed_checkpoint,
    a_lightning_checkpoint_with_hyper_parameters,
    an_lstm_in_a_file_called_viz,
    a_task_of_dictionaries_with_two_inputs,
    a_loss_of_derivatives_by_the_inputs,
    a_transformer_with_both_kinds_of_activation_checkpoints,
    a_sharded_gpt2_with_tied_weights,
    a_lora_adapter_on_a_directory,
    a_bert_classifier,
    a_vision_transformer,
]


def audited(case, folder):
    """Runs a case and compares its report with plain torch."""
    arguments, model, loss = case(folder)
    value, top = truth(model, loss)
    command(folder, "audit", *arguments, *MEASURES)
    report = report_of(folder)
    assert values_of(report) == {
        "train-loss": pytest.approx(value, rel=1e-5),
        "hessian-top-eigenvalue": pytest.approx(top, rel=1e-4),
    }
    return report


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_loss_and_top_eigenvalue_are_those_of_plain_torch(case, tmp_path):
    audited(case, tmp_path)


# --- what is beside the report, and repetition ------------------------------------------------


@pytest.fixture
def _clean_imports(tmp_path):
    """Modules of the user's folder are forgotten afterwards; other tests have their own."""
    yield
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def measured(monkeypatch):
    """Names of the measures that are computed in this process."""
    names = []
    compute = landscape.Measure.compute
    monkeypatch.setattr(
        landscape.Measure,
        "compute",
        lambda self, *rest: names.append(self.name) or compute(self, *rest),
    )
    return names


@pytest.mark.usefixtures("_clean_imports")
def test_the_config_beside_a_report_measures_nothing_again(tmp_path, monkeypatch, measured):
    before = audited(a_plain_state_with_a_width, tmp_path)
    monkeypatch.chdir(tmp_path)
    path, config = list(sys.path), config_of(tmp_path)
    done = run("audit", "--config", "landscape-report/config.yaml")
    assert done.exit_code == 0, done.output
    assert measured == []
    assert report_of(tmp_path)["results"] == before["results"]
    assert config_of(tmp_path) == config
    # The folder of the user's files is importable while they are loaded, and only then.
    assert sys.path == path
    assert "helpers" in sys.modules
    done = run("audit", "--config", "landscape-report/config.yaml", "--weight-decay", 0.5)
    assert done.exit_code == 0, done.output
    assert measured == ["train-loss", "hessian-top-eigenvalue"]


@pytest.mark.usefixtures("_clean_imports")
def test_a_subset_is_drawn_without_replacement_by_its_seed_alone(tmp_path, monkeypatch):
    # Example i alone has the loss 4^i, so that the mean tells which were drawn.
    (tmp_path / "zero.py").write_text(
        "from torch import nn\n"
        "def build():\n"
        "    model = nn.Linear(1, 1)\n"
        "    nn.init.zeros_(model.weight), nn.init.zeros_(model.bias)\n"
        "    return model\n"
    )
    np.savez(tmp_path / "train.npz", x=np.ones((20, 1)), y=2.0 ** np.arange(20)[:, None])
    source = ["--model", "zero.py:build", "--objective", "mse", "--data", "train.npz"]

    def drawn(seed):
        given = [*source, "--samples", 7, "--data-seed", seed, "--dtype", "float64", "--fresh"]
        done = run("audit", *given, "--measures", "train-loss")
        assert done.exit_code == 0, done.output
        total = round(values_of(report_of(tmp_path))["train-loss"] * 7)
        digits = [total // 4**at % 4 for at in range(20)]
        assert sum(digits) == 7
        assert set(digits) == {0, 1}
        return digits

    monkeypatch.chdir(tmp_path)
    first = drawn(3)
    torch.rand(1)  # the global random state has no part in it
    assert drawn(3) == first
    assert drawn(4) != first


def test_validate_tells_the_loss_and_writes_nothing(tmp_path):
    arguments, model, loss = a_plain_state_with_a_width(tmp_path)
    before = sorted(tmp_path.iterdir())
    told = command(tmp_path, "validate", *arguments)
    agreed = float(re.search(r"agree: loss ([\d.]+),", told)[1])
    assert agreed == pytest.approx(truth(model, loss)[0], rel=1e-5)
    assert "59 trainable parameters in 4 tensors of 2 layers" in told
    assert "20 examples in batches of 20" in told
    assert [path for path in sorted(tmp_path.iterdir()) if path.name != "__pycache__"] == before


@pytest.mark.usefixtures("_clean_imports")
def test_a_directory_in_older_names_lists_what_does_not_fit(tmp_path, monkeypatch):
    arguments, *_ = a_vision_transformer(tmp_path)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "vit" / "model.safetensors"
    state = safetensors.torch.load_file(path)
    assert state.pop("vit.encoder.layer.0.attention.attention.key.bias").shape == (8,)
    state |= {"extra": torch.zeros(2), "classifier.weight": torch.zeros(5, 8)}
    safetensors.torch.save_file(state, path)
    done = run("audit", *arguments, *MEASURES)
    assert done.exit_code == 2
    assert done.stderr == (
        "landscape: vit does not fit the model: missing 1 (vit.layers.0.attention.k_proj.bias); "
        "unexpected 1 (extra); wrong shapes: 1 (classifier.weight is (5, 8) instead of (2, 8))\n"
    )
    assert not (tmp_path / "landscape-report").exists()
    del state["classifier.weight"]
    safetensors.torch.save_file(state, path)
    done = run("audit", *arguments, *MEASURES, "--allow-missing")
    assert done.exit_code == 0, done.output
    notes = report_of(tmp_path)["extras"]["task"]["notes"]
    assert "names converted by transformers" in notes
    assert "missing 2 (classifier.weight, vit.layers.0.attention.k_proj.bias), allowed" in notes
