"""Checkpoints of every kind: what is read, what is refused, and in which words."""

import argparse
import collections
import copy
import datetime as dt
import json
import logging
import os
import pickle
import sys
import tarfile
import tempfile
import warnings
import zipfile
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePath, PurePosixPath

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from landscape.tasks.checkpoints import (
    Checkpoint,
    CheckpointError,
    is_adapter,
    load_adapter,
    read_checkpoint,
)
from landscape.tasks.checkpoints.unpickling import unpickle


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 2))


def trained(optimizer_of, seed=0):
    """A net after one step of an optimiser, with it."""
    model = net(seed)
    optimizer = optimizer_of(model)
    model(torch.randn(5, 4)).square().sum().backward()
    optimizer.step()
    return model, optimizer


def adamw(model):
    return torch.optim.AdamW(model.parameters(), lr=0.01)


def equal(one, other):
    states = one.state_dict(), other.state_dict()
    return all(torch.equal(a, b) for a, b in zip(*(s.values() for s in states), strict=True))


def loads(path, model=None, into=None, **settings):
    """Reads a checkpoint of `model` into a net with other weights; returns all notes."""
    into = net(9) if into is None else into
    checkpoint = read_checkpoint(path, **settings)
    notes = checkpoint.load_into(into)
    assert equal(into, net() if model is None else model)
    return " | ".join(checkpoint.notes + notes)


def refused(path, **settings):
    """The one line with which a checkpoint is refused."""
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path, **settings)
    line = str(caught.value)
    assert "\n" not in line
    assert str(path) in line
    return line


def misfit(state, model=None, **settings):
    with pytest.raises(CheckpointError) as caught:
        Checkpoint(path=Path("w.pt"), state=state).load_into(model or net(), **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def prefixed(state, prefix):
    return {prefix + name: tensor for name, tensor in state.items()}


# Where the weights are.


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt", ".safetensors"])
def test_a_state_dict_is_read_whatever_the_suffix(suffix, tmp_path):
    path = tmp_path / f"w{suffix}"
    save = safetensors.torch.save_file if suffix == ".safetensors" else torch.save
    save(net().state_dict(), path)
    assert loads(path) == ""


def test_formats_are_told_by_content(tmp_path):
    path = tmp_path / "w.bin"
    safetensors.torch.save_file(net().state_dict(), path)
    loads(path)
    torch.save(net().state_dict(), path, _use_new_zipfile_serialization=False)
    loads(path)


@pytest.mark.parametrize(
    "key",
    ["state_dict", "model_state_dict", "model", "net", "network", "module", "last", "weights"],
)
def test_weights_are_found_inside_training_checkpoints(key, tmp_path):
    path = tmp_path / "w.pt"
    torch.save({"epoch": 3, "best": torch.tensor(0.5), key: net().state_dict()}, path)
    assert loads(path) == f"read under {key!r}"
    torch.save({"checkpoint": {key: net().state_dict(), "epoch": 3}}, path)
    assert loads(path) == f"read under 'checkpoint', {key!r}"


def test_a_lightning_checkpoint_is_read_with_its_optimiser(tmp_path):
    path = tmp_path / "epoch=1.ckpt"
    model, optimizer = trained(adamw)
    content = {
        "epoch": 1,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": prefixed(model.state_dict(), "model."),
        "hyper_parameters": {"lr": 0.01, "args": argparse.Namespace(depth=3)},
        "optimizer_states": [optimizer.state_dict()],
        "callbacks": {"ModelCheckpoint": {"best": PurePosixPath("a.ckpt")}},
        "loops": {},
    }
    torch.save(content, path)
    assert "prefix 'model.' removed" in loads(path, model)
    checkpoint = read_checkpoint(path)
    assert checkpoint.learning_rate() == 0.01
    momentum = checkpoint.momentum(model)
    for name, parameter in model.named_parameters():
        assert torch.equal(momentum[name], optimizer.state[parameter]["exp_avg"])


def test_what_is_no_state_dict_is_refused(tmp_path):
    path = tmp_path / "w.pt"
    torch.save({"model": {"a": torch.ones(1), "b": 3}}, path)
    assert "no plain state_dict: entry 'b' is a int" in refused(path)
    torch.save([1, 2], path)
    assert "holds a list, not a state_dict" in refused(path)
    torch.save({}, path)
    assert "without entries" in refused(path)
    torch.save({"_fsdp_wrapped_module._flat_param": torch.ones(9)}, path)
    assert "FULL_STATE_DICT" in refused(path)


# What a pickle may name.


def test_harmless_settings_do_not_keep_a_checkpoint_from_being_read(tmp_path):
    omegaconf = pytest.importorskip("omegaconf")
    path = tmp_path / "w.pt"
    defaults = collections.defaultdict(list, a=[1])
    content = {
        "model": net().state_dict(),
        "args": argparse.Namespace(lr=0.1, out=Path("runs/a")),
        "config": omegaconf.OmegaConf.create({"a": 1, "b": [1, 2.5, "c"], "d": {"e": None}}),
        "best": np.float64(0.25),
        "rng": np.random.RandomState(0).get_state(),
        "dtype": np.dtype("float32"),
        "history": defaults,
        "queue": collections.deque([1, 2], maxlen=5),
        "counter": collections.Counter("aab"),
        "ordered": collections.OrderedDict(a=1),
        "time": dt.datetime.now(dt.UTC),
        "took": dt.timedelta(hours=1),
        "names": frozenset({"a"}),
        "size": torch.Size([1, 2]),
        "kind": torch.bfloat16,
        "device": torch.device("cpu"),
        "slice": slice(1, 2),
        "version": torch.__version__,
    }
    torch.save(content, path)
    loads(path)


def test_a_learning_rate_that_is_a_numpy_number_is_read(tmp_path):
    path = tmp_path / "w.pt"
    model, optimizer = trained(adamw)
    state = optimizer.state_dict()
    state["param_groups"][0]["lr"] = np.float32(0.5)
    torch.save({"model": model.state_dict(), "optimizer": state}, path)
    assert read_checkpoint(path).learning_rate() == 0.5


class Malicious:
    """A pickle that would create a file."""

    def __init__(self, target, function=os.mkdir):
        self.target, self.function = target, function

    def __reduce__(self):
        return self.function, (str(self.target),)


def attack_by_getattr(target):
    class Get:
        def __reduce__(self):
            return getattr, (Path(target), "mkdir")

    return Get()


ATTACKS = {
    "os": Malicious,
    "eval": lambda target: Malicious(f"__import__('os').mkdir({str(target)!r})", eval),
    "getattr": attack_by_getattr,
    "loads": lambda target: Malicious(target, Path.mkdir),
}


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("zipped", [True, False])
def test_a_malicious_pickle_is_refused_and_not_run(attack, zipped, tmp_path):
    path, target = tmp_path / "w.pt", tmp_path / "made"
    content = {"model": net().state_dict(), "args": ATTACKS[attack](target)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    line = refused(path)
    assert "--trust-pickle" in line
    assert "it needs " in line
    assert not target.exists()


def test_listed_types_are_not_run_either(tmp_path):
    path = tmp_path / "w.pt"
    torch.save([argparse.Namespace(a=1), Path("a"), dt.timedelta(1), np.ones(2)], path)
    before = set(torch.serialization.get_safe_globals())
    found = unpickle(path, path)
    real = (argparse.Namespace, PurePath, dt.timedelta, np.ndarray)
    assert not any(isinstance(value, real) for value in found)
    assert [type(value).__name__ for value in found][::2] == ["Namespace", "timedelta"]
    assert set(torch.serialization.get_safe_globals()) == before


def test_trust_runs_the_pickle_and_says_so(tmp_path, caplog):
    path, target = tmp_path / "w.pt", tmp_path / "made"
    torch.save({"model": net().state_dict(), "args": Malicious(target)}, path)
    with caplog.at_level(logging.WARNING):
        loads(path, trust_pickle=True)
    assert target.is_dir()
    assert "executes any code" in caplog.text


def test_a_file_that_needs_no_trust_is_read_without(tmp_path, caplog):
    path = tmp_path / "w.pt"
    torch.save(net().state_dict(), path)
    loads(path, trust_pickle=True)
    assert not caplog.text


def test_a_whole_model_is_read_with_trust_only(tmp_path):
    path = tmp_path / "w.pt"
    torch.save(net(), path)
    assert "torch.nn.modules.container.Sequential" in refused(path)
    assert "pickled model" in loads(path, trust_pickle=True)
    torch.save({"model": net(), "epoch": 3}, path)
    loads(path, trust_pickle=True)


# Files that are broken, or something else.


def html(path):
    path.write_text("<!DOCTYPE html><html><body>Not found</body></html>")


def pointer(path):
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 3\n")


def truncated(path):
    torch.save(net().state_dict(), path)
    path.write_bytes(path.read_bytes()[:1500])


def scripted(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(net().eval(), torch.ones(1, 4)), path)


def zipped(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no weights")


def tarred(path):
    inside = path.with_name("inside.pt")
    torch.save(net().state_dict(), inside)
    with tarfile.open(path, "w") as archive:
        archive.add(inside)


def protocol_4(path):
    torch.save(net().state_dict(), path, pickle_protocol=4)


BROKEN = {
    "missing": (lambda _: None, "w.pt", "there is no checkpoint"),
    "empty": (Path.touch, "w.pt", "is empty"),
    "html": (html, "w.pt", "is an HTML page, not a checkpoint: the download went wrong"),
    "html as safetensors": (html, "w.safetensors", "is an HTML page"),
    "lfs": (pointer, "model.safetensors", "run git lfs pull"),
    "truncated": (truncated, "w.pt", "truncated, corrupted"),
    "random": (lambda path: path.write_bytes(os.urandom(3000)), "w.pt", "corrupted"),
    "not safetensors": (truncated, "w.safetensors", "cannot be read as safetensors"),
    "torchscript": (scripted, "w.pt", "TorchScript archive; save its weights"),
    "zip": (zipped, "w.pt", "zip archive that torch did not write"),
    "tar": (tarred, "w.pt", "is a tar archive"),
    "protocol": (protocol_4, "w.pt", "no plain state_dict, or corrupted"),
    "gguf": (Path.touch, "w.gguf", "is a GGUF file"),
    "keras": (Path.touch, "w.h5", "is an HDF5 file of Keras"),
    "onnx": (Path.touch, "w.onnx", "is an ONNX graph"),
    "numpy": (lambda path: np.savez(path, a=np.ones(2)), "w.npz", "archive of NumPy arrays"),
    "nothing": (Path.mkdir, "run", "is a directory without a checkpoint; it holds nothing"),
    "no index": (lambda path: path.write_text("{}"), "a.index.json", "no index of shards"),
    "bad json": (lambda path: path.write_text("{"), "a.index.json", "no index of shards"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_one_line(name, tmp_path):
    make, filename, words = BROKEN[name]
    make(tmp_path / filename)
    assert words in refused(tmp_path / filename)


@contextmanager
def unprivileged():
    """The superuser may read everything, so that it is another user who tries."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


@pytest.mark.parametrize("name", ["w.pt", "folder", "folder/model.safetensors"])
def test_what_may_not_be_opened_is_one_line(name):
    with tempfile.TemporaryDirectory() as root:  # which any user may enter, unlike tmp_path
        Path(root).chmod(0o755)
        torch.save(net().state_dict(), Path(root, "w.pt"))
        Path(root, "folder").mkdir()
        for entry in Path(root).iterdir():
            entry.chmod(0)
        with unprivileged():
            assert "cannot be opened (Permission denied)" in refused(Path(root, name))
        Path(root, "folder").chmod(0o700)


# Directories and shards.


def gpt2(seed=0, **settings):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(seed)
    sizes = {"vocab_size": 40, "n_positions": 16, "n_embd": 32, "n_layer": 2, "n_head": 2}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, **settings))


def test_a_sharded_model_with_tied_weights_is_read_from_its_directory_or_index(tmp_path):
    model = gpt2()
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    index = tmp_path / "model.safetensors.index.json"
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    assert "lm_head.weight" not in read_checkpoint(tmp_path).state
    assert "model.safetensors.index.json" in loads(tmp_path, model, gpt2(1))
    loads(index, model, gpt2(1))
    shard = sorted(tmp_path.glob("model-*.safetensors"))[1]
    shard.unlink()
    assert f"shards that are not there: 1 ({shard.name})" in refused(index)


def test_shards_of_torch_files_are_read_and_checked_against_the_index(tmp_path):
    state = net().state_dict()
    files = {name: f"pytorch_model-{number % 2}.bin" for number, name in enumerate(state)}
    for file in set(files.values()):
        torch.save({name: state[name] for name in state if files[name] == file}, tmp_path / file)
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": files}))
    loads(tmp_path)
    index.write_text(json.dumps({"weight_map": files | {"more": "pytorch_model-0.bin"}}))
    assert "lack entries of the index: 1 (more)" in refused(index)
    index.write_text(json.dumps({"weight_map": {"a": "../secret.bin"}}))
    assert "outside its folder" in refused(index)


def test_a_directory_with_one_checkpoint_is_read_and_with_several_lists_them(tmp_path):
    torch.save(net().state_dict(), tmp_path / "a.pt")
    torch.save({}, tmp_path / "scheduler.pt")
    (tmp_path / "log.txt").touch()
    assert loads(tmp_path) == "read from a.pt"
    torch.save(net().state_dict(), tmp_path / "b.ckpt")
    assert "several checkpoints; give one of 2 (a.pt, b.ckpt)" in refused(tmp_path)


@pytest.mark.parametrize(
    ("inside", "words"),
    [
        ("zero_to_fp32.py", "directory of DeepSpeed"),
        ("checkpoints/epoch=1.ckpt", "give one inside it: 1 (checkpoints/epoch=1.ckpt)"),
        ("checkpoint-500/model.safetensors", "give one inside it: 1 (checkpoint-500)"),
        ("adapter_config.json", "PEFT adapter"),
        ("notes.txt", "without a checkpoint; it holds 1 (notes.txt)"),
    ],
)
def test_other_directories_are_refused_in_words(inside, words, tmp_path):
    (tmp_path / inside).parent.mkdir(exist_ok=True)
    (tmp_path / inside).touch()
    assert words in refused(tmp_path)


def distributed(folder, content):
    checkpoint = pytest.importorskip("torch.distributed.checkpoint")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        checkpoint.save(content, checkpoint_id=folder, no_dist=True)
    return folder


def test_a_distributed_checkpoint_is_read_with_its_optimiser(tmp_path):
    model, optimizer = trained(adamw)
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}
    folder = distributed(tmp_path / "step", state)
    assert "torch.distributed.checkpoint" in loads(folder, model)
    checkpoint = read_checkpoint(folder)
    assert checkpoint.learning_rate() == 0.01
    momentum = checkpoint.momentum(model)
    for name, parameter in model.named_parameters():
        assert torch.equal(momentum[name], optimizer.state[parameter]["exp_avg"])


def test_the_optimiser_of_a_distributed_checkpoint_is_read_by_name(tmp_path):
    from torch.distributed.checkpoint.state_dict import get_state_dict

    model, optimizer = trained(adamw)
    weights, state = get_state_dict(model, optimizer)
    folder = distributed(tmp_path / "step", {"model": weights, "optim": state})
    momentum = read_checkpoint(folder).momentum(model)
    assert torch.equal(momentum["3.bias"], optimizer.state[model[3].bias]["exp_avg"])


def test_broken_distributed_checkpoints_are_one_line(tmp_path):
    folder = distributed(tmp_path / "step", {"model": net().state_dict()})
    (data,) = folder.glob("*.distcp")
    data.write_bytes(data.read_bytes()[:600])
    assert "truncated or corrupted" in refused(folder)
    data.unlink()
    assert f"lacks files of its checkpoint: 1 ({data.name})" in refused(folder)
    (folder / ".metadata").write_bytes(b"\x80\x04junk")
    assert "truncated, corrupted" in refused(folder)


def test_pickles_of_a_distributed_checkpoint_are_not_run(tmp_path):
    target = tmp_path / "made"
    content = {"model": net().state_dict(), "args": Malicious(target)}
    folder = distributed(tmp_path / "step", content)
    with pytest.raises(CheckpointError, match="--trust-pickle"):
        read_checkpoint(folder)
    assert not target.exists()
    (folder / ".metadata").write_bytes(pickle.dumps(Malicious(target)))
    with pytest.raises(CheckpointError, match=r"posix\.mkdir|nt\.mkdir"):
        read_checkpoint(folder)
    assert not target.exists()


# Names.


@pytest.mark.parametrize(
    "prefix",
    ["module.", "_orig_mod.", "model.", "module._orig_mod.model.", "_forward_module.net.", "a.b."],
)
def test_a_prefix_that_all_names_have_is_removed(prefix, tmp_path):
    path = tmp_path / "w.pt"
    torch.save(prefixed(net().state_dict(), prefix), path)
    assert "removed" in loads(path)


def test_a_prefix_of_the_model_stays():
    model = nn.Sequential(collections.OrderedDict(model=net()))
    other = nn.Sequential(collections.OrderedDict(model=net(1)))
    checkpoint = Checkpoint(path=Path("w.pt"), state=model.state_dict())
    assert checkpoint.load_into(other) == ()
    assert equal(model, other)


def test_states_of_compiled_models_and_wrappers_inside_names_are_read(tmp_path):
    path = tmp_path / "w.pt"
    torch.save(torch.compile(net(), backend="eager").state_dict(), path)
    assert "torch.compile" in loads(path)
    state = {
        f"0._checkpoint_wrapped_module._fsdp_wrapped_module.{name}": tensor
        for name, tensor in nn.Linear(2, 2).state_dict().items()
    }
    torch.save(state, path)
    assert list(read_checkpoint(path).state) == ["0.weight", "0.bias"]


@pytest.mark.parametrize("wrap", [partial(torch.compile, backend="eager"), nn.DataParallel])
def test_a_wrapped_model_takes_a_plain_state(wrap):
    wrapped = wrap(net(1))
    Checkpoint(path=Path("w.pt"), state=dict(net().state_dict())).load_into(wrapped)
    assert equal(wrapped, net())


def test_a_bare_encoder_takes_a_prefix_only_where_everything_then_fits():
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 11}
    config = transformers.BertConfig(**sizes, intermediate_size=8, max_position_embeddings=8)
    model = transformers.BertForSequenceClassification(config)
    bare = Checkpoint(path=Path("w.pt"), state=dict(model.bert.state_dict()))
    with pytest.raises(CheckpointError, match="missing"):
        bare.load_into(copy.deepcopy(model))
    notes = bare.load_into(model, allow_missing=True)
    assert "prefix 'bert.' put in front of the names" in notes
    assert "missing 2 (classifier.bias, classifier.weight), allowed" in notes
    other = nn.ModuleDict({"bert": transformers.BertModel(config)})
    assert bare.load_into(other) == ("prefix 'bert.' put in front of the names",)
    assert equal(other["bert"], model.bert)


def test_entries_of_a_training_wrapper_are_listed_with_the_prefix_that_would_fit():
    state = prefixed(net().state_dict(), "model.") | {"criterion.weight": torch.ones(2)}
    line = misfit(state)
    assert "criterion.weight" in line
    assert "the entries under 'model.' would fit" in line
    model = net(1)
    notes = Checkpoint(path=Path("w.pt"), state=state).load_into(model, allow_missing=True)
    assert "unexpected 1 (criterion.weight), allowed" in notes
    assert equal(model, net())


def test_missing_unexpected_and_wrong_shapes_are_listed():
    state = net().state_dict()
    state["3.weight"], state["extra"] = torch.zeros(2, 5), torch.zeros(1)
    del state["0.bias"]
    expected = (
        "w.pt does not fit the model: missing 1 (0.bias); unexpected 1 (extra); wrong shapes: 1 "
        "(3.weight is (2, 5) instead of (2, 3))"
    )
    assert misfit(state) == expected
    assert misfit(state, allow_missing=True) == (
        "w.pt does not fit the model: wrong shapes: 1 (3.weight is (2, 5) instead of (2, 3))"
    )
    del state["3.weight"]
    model = net(1)
    notes = Checkpoint(path=Path("w.pt"), state=state).load_into(model, allow_missing=True)
    assert notes == ("missing 2 (0.bias, 3.weight), allowed", "unexpected 1 (extra), allowed")
    assert torch.equal(model[0].weight, net()[0].weight)
    assert torch.equal(model[3].weight, net(1)[3].weight)


@pytest.mark.parametrize("allow_missing", [False, True])
def test_another_architecture_is_said_in_words_and_never_loaded(allow_missing):
    model = net()
    line = misfit({"encoder.weight": torch.ones(2)}, model, allow_missing=allow_missing)
    assert "no name in common" in line
    assert "another architecture" in line
    assert equal(model, net())


def test_a_model_is_untouched_by_a_state_that_does_not_fit():
    model = net(1)
    misfit(net().state_dict() | {"3.weight": torch.zeros(2, 5)}, model)
    assert equal(model, net(1))


@pytest.mark.parametrize("old", [True, False])
def test_both_spellings_of_weight_norm_are_read(old):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        plain = nn.utils.weight_norm(nn.Linear(3, 2))
        other = nn.utils.weight_norm(nn.Linear(3, 2))
    parametrised = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
    one, two = (plain, parametrised) if old else (parametrised, other)
    state = nn.Sequential(one).state_dict()
    Checkpoint(path=Path("w.pt"), state=dict(state)).load_into(nn.Sequential(two))
    inputs = torch.randn(4, 3)
    assert torch.allclose(one(inputs), two(inputs))


def test_buffers_of_other_library_versions_may_be_missing_or_unexpected():
    model = gpt2()
    state = dict(model.state_dict())
    state["transformer.h.0.attn.bias"] = torch.ones(1, 1, 16, 16, dtype=torch.bool)
    state["transformer.h.0.attn.masked_bias"] = torch.tensor(-1e4)
    state["transformer.position_ids"] = torch.arange(16)[None]
    assert Checkpoint(path=Path("w.pt"), state=state).load_into(gpt2(1)) == ()
    state["transformer.h.0.attn.bias"] = torch.ones(16)
    assert "unexpected 1 (transformer.h.0.attn.bias)" in misfit(state, gpt2())
    plain = dict(net().state_dict())
    del plain["1.num_batches_tracked"]
    assert Checkpoint(path=Path("w.pt"), state=plain).load_into(net(1)) == ()


def test_a_parameter_with_the_name_of_such_a_buffer_may_not_be_missing():
    model = nn.ModuleDict({"attn": nn.Linear(2, 2)})
    assert "missing 1 (attn.bias)" in misfit({"attn.weight": torch.ones(2, 2)}, model)


def test_tied_weights_that_differ_in_the_file_are_refused():
    model = gpt2()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert Checkpoint(path=Path("w.pt"), state=state).load_into(gpt2(1)) == ()
    state["lm_head.weight"] += 1
    assert "are one tensor in the model" in misfit(state, model)
    untied = gpt2(tie_word_embeddings=False)
    del state["lm_head.weight"]
    assert "missing 1 (lm_head.weight)" in misfit(state, untied)


# Values.


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_read_into_full_and_the_same(dtype):
    state = {name: tensor.to(dtype) for name, tensor in net().state_dict().items()}
    full, half = net(1), net(1).to(dtype)
    for model in (full, half):
        Checkpoint(path=Path("w.pt"), state=state).load_into(model)
        assert torch.equal(model[0].weight.float(), state["0.weight"].float())
    assert full[0].weight.dtype == torch.float32
    assert half[0].weight.dtype == dtype


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tensor: tensor.to(torch.int8), "0.weight is int8"),
        (lambda tensor: tensor.to(torch.float8_e4m3fn), "0.weight is float8_e4m3fn"),
        (
            lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8),
            "0.weight is qint8",
        ),
        (lambda tensor: tensor.to(torch.complex64), "0.weight is complex64"),
        (lambda tensor: tensor.to("meta"), "without values"),
    ],
)
def test_values_that_are_no_weights_are_refused(change, words):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # quantised tensors are deprecated
        state = net().state_dict()
        state["0.weight"] = change(state["0.weight"])
        assert words in misfit(state)
        assert words in misfit(state, allow_missing=True)


# Averaged weights.


def averaged():
    """An AveragedModel of two nets, and the state that it averages to."""
    average = AveragedModel(net(1), multi_avg_fn=get_ema_multi_avg_fn(0.5))
    for seed in (1, 2):
        average.update_parameters(net(seed))
    return average


@pytest.mark.parametrize(
    "key",
    [
        "ema",
        "ema_state_dict",
        "model_ema",
        "state_dict_ema",
        "ema_model",
        "averaged_model",
        "swa_state_dict",
    ],
)
@pytest.mark.parametrize("inner", [None, "module", "state_dict", "shadow"])
def test_averaged_weights_are_read_where_asked_for(key, inner, tmp_path):
    path = tmp_path / "w.pt"
    average = averaged().module
    state = average.state_dict()
    ema = state if inner is None else {inner: state, "decay": 0.5, "updates": 2}
    torch.save({"model": net().state_dict(), key: ema}, path)
    assert loads(path) == "read under 'model'"
    assert f"read under {key!r}" in loads(path, average, ema=True)
    torch.save({key: ema, "epoch": 1}, path)
    assert "the only weights in the file" in loads(path, average)


def test_the_state_of_an_averaged_model_is_read(tmp_path):
    path = tmp_path / "w.pt"
    average = averaged()
    torch.save(average.state_dict(), path)
    for ema in (False, True):
        assert "state of an AveragedModel" in loads(path, average.module, ema=ema)
    torch.save({"model": net().state_dict(), "swa_state_dict": average.state_dict()}, path)
    loads(path, average.module, ema=True)


def test_averages_of_the_parameters_alone_keep_the_buffers(tmp_path):
    path = tmp_path / "w.pt"
    average = averaged().module
    parameters = {name: tensor.detach() for name, tensor in average.named_parameters()}
    expected = copy.deepcopy(average)
    expected.load_state_dict(net().state_dict() | parameters)
    torch.save({"model": net().state_dict(), "ema": {"shadow": parameters}}, path)
    assert "not averaged, from the weights beside" in loads(path, expected, ema=True)
    by_position = {"decay": 0.5, "shadow_params": list(parameters.values())}
    torch.save({"model": net().state_dict(), "ema": by_position}, path)
    loads(path, expected, ema=True)
    by_position["shadow_params"].pop()
    torch.save({"model": net().state_dict(), "ema": by_position}, path)
    assert "by position" in refused(path, ema=True)


def test_averaged_weights_that_are_not_there_list_what_is(tmp_path):
    path = tmp_path / "w.pt"
    torch.save({"model": net().state_dict(), "epoch": 3}, path)
    assert "no averaged weights; it has the entries 2 (model, epoch)" in refused(path, ema=True)


# Optimisers.


def decayed(model, **settings):
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0, **settings}]
    return torch.optim.AdamW(groups, lr=0.01)


def test_groups_with_and_without_decay_are_told_apart_by_shape(tmp_path):
    model, optimizer = trained(decayed)
    safetensors.torch.save_file(model.state_dict(), tmp_path / "model.safetensors")
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    torch.save({"last_epoch": 1}, tmp_path / "scheduler.pt")
    torch.save(argparse.Namespace(lr=1), tmp_path / "training_args.bin")
    checkpoint = read_checkpoint(tmp_path)
    assert "optimiser's state from optimizer.pt" in checkpoint.notes
    assert checkpoint.learning_rate() == 0.01
    momentum = checkpoint.momentum(model)
    for name, parameter in model.named_parameters():
        assert torch.equal(momentum[name], optimizer.state[parameter]["exp_avg"])
    (tmp_path / "optimizer.pt").write_bytes(b"junk")
    assert any("without the optimiser's state" in note for note in read_checkpoint(tmp_path).notes)


def test_groups_that_shapes_cannot_tell_apart_give_no_momentum(tmp_path, caplog):
    def halves(model):
        first, second = list(model.parameters())[::2], list(model.parameters())[1::2]
        return torch.optim.AdamW([{"params": first}, {"params": second, "lr": 0.5}], lr=0.01)

    path = tmp_path / "w.pt"
    model, optimizer = trained(halves)
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, path)
    checkpoint = read_checkpoint(path)
    assert checkpoint.momentum(model) is None
    assert "does not fit the model" in caplog.text
    assert checkpoint.learning_rate() is None


def test_names_that_were_saved_with_the_optimiser_decide(tmp_path):
    def named(model):
        entries = [(f"module.{name}", entry) for name, entry in model.named_parameters()]
        return torch.optim.SGD(entries[::-1], lr=0.1, momentum=0.9)

    path = tmp_path / "w.pt"
    model, optimizer = trained(named)
    if "param_names" not in optimizer.state_dict()["param_groups"][0]:
        pytest.skip("this torch does not save names")
    torch.save({"model": model.state_dict(), "optim": optimizer.state_dict()}, path)
    momentum = read_checkpoint(path).momentum(model)
    for name, parameter in model.named_parameters():
        assert torch.equal(momentum[name], optimizer.state[parameter]["momentum_buffer"])


@pytest.mark.parametrize(
    "content",
    [
        {"state": [], "param_groups": []},
        {"state": {}, "param_groups": [{"lr": 0.1}]},
        {"state": {}, "param_groups": argparse.Namespace()},
        [1, 2],
    ],
)
def test_what_is_no_optimiser_is_left_out(content, tmp_path):
    path = tmp_path / "w.pt"
    torch.save({"model": net().state_dict(), "optimizer": content}, path)
    checkpoint = read_checkpoint(path)
    assert checkpoint.optimizer is None
    assert checkpoint.learning_rate() is None
    assert checkpoint.momentum(net()) is None


def test_an_optimiser_without_running_means_has_a_learning_rate(tmp_path, caplog):
    path = tmp_path / "w.pt"
    model, optimizer = trained(lambda model: torch.optim.SGD(model.parameters(), lr=0.25))
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, path)
    checkpoint = read_checkpoint(path)
    assert checkpoint.momentum(model) is None
    assert checkpoint.learning_rate() == 0.25
    assert not caplog.text


# Adapters.


def adapted(seed=0):
    """A base model and the same with an adapter that changes its outputs."""
    peft = pytest.importorskip("peft")
    base = net(seed)
    config = peft.LoraConfig(r=2, target_modules=["0", "3"], init_lora_weights=False)
    return peft.get_peft_model(copy.deepcopy(base), config).eval()


def test_an_adapter_is_read_onto_its_base(tmp_path):
    model = adapted()
    model.save_pretrained(tmp_path)
    assert is_adapter(tmp_path)
    loaded = load_adapter(net(), tmp_path).eval()
    inputs = torch.randn(5, 4)
    assert torch.equal(loaded(inputs), model(inputs))
    trainable = {name for name, one in loaded.named_parameters() if one.requires_grad}
    assert trainable
    assert all("lora_" in name for name in trainable)
    assert sum("lora_" in name for name, _ in loaded.named_parameters()) == len(trainable)


def test_an_adapter_that_does_not_fit_or_is_none_is_one_line(tmp_path):
    with pytest.raises(CheckpointError, match=r"adapter_config\.json is expected"):
        load_adapter(net(), tmp_path)
    adapted().save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="base model that it was trained on"):
        load_adapter(nn.Sequential(nn.Linear(7, 5)), tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"junk")
    with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
        load_adapter(net(), tmp_path)
    (tmp_path / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="lacks the adapter's weights"):
        load_adapter(net(), tmp_path)


def test_an_adapter_without_peft_says_what_to_install(tmp_path, monkeypatch):
    adapted().save_pretrained(tmp_path)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(CheckpointError, match="pip install peft"):
        load_adapter(net(), tmp_path)


def test_the_entry_that_holds_the_weights_can_be_named(tmp_path):
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    state, path = model.state_dict(), tmp_path / "own.pt"
    modules = {"0": model[0].state_dict(), "1": model[1].state_dict()}
    other = {"w": torch.zeros(1)}
    forms = [
        ({"model_state": state, "epoch": 3}, None),  # the only weights
        ({"generator": state, "critic": other}, "generator"),
        ({"nets": {"a.b": {"student": state}, "teacher": other}}, "nets.a.b.student"),
        ({**modules, "epoch": 3}, "0,1"),
    ]
    for content, key in forms:
        torch.save(content, path)
        found = read_checkpoint(path, key=key)
        assert found.state.keys() == state.keys()
        assert all(torch.equal(found.state[name], state[name]) for name in state)
    torch.save({"generator": state, "critic": other}, path)
    with pytest.raises(CheckpointError, match="--weights-key generator"):
        read_checkpoint(path)
    with pytest.raises(CheckpointError, match=r"no entry 'student'; of its entries 2 "):
        read_checkpoint(path, key="student")
