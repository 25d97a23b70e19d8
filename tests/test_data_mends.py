"""Test data read as the training data were, padding, labels of tokens, images of models."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from landscape import Settings, Task, open_task
from landscape.tasks import composed_task
from landscape.tasks.data import DataOptions, batches_of, read_examples

WORDS = ["<pad>", "<end>", "?", "the", "cat", "dog", "sat", "ran", "on", "a", "mat", "far", "away"]
WORDS += ["big", "red"]
NET = "import torch\n\ndef net():\n    return torch.nn.Linear(2, 3)\n"


def lines(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def whole(found):
    return found.batch(range(len(found)))


def tokenizer_at(path, **settings):
    """A tokenizer of whole words in a directory."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: at for at, word in enumerate(WORDS)}, "?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    made = PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token="<end>", unk_token="?", **settings
    )
    made.save_pretrained(path)
    return path


def texts(path, labels=None):
    generator = np.random.default_rng(0)
    rows = [" ".join(generator.choice(WORDS[3:], generator.integers(2, 9))) for _ in range(16)]
    return lines(
        path,
        [{"text": text, **({} if labels is None else {"label": labels[at % len(labels)]})}
         for at, text in enumerate(rows)],
    )  # fmt: skip


def read_alike(train, test, **options):
    """Test data as a task reads them after its training data."""
    like = read_examples(train, DataOptions(**options)).settled
    return read_examples(test, DataOptions(**options, like=like))


# --- test data are read as the training data --------------------------------------------------


def test_classes_of_test_tables_have_the_numbers_of_the_training_data(tmp_path):
    (tmp_path / "net.py").write_text(NET)
    train, test = tmp_path / "train.csv", tmp_path / "test.csv"
    train.write_text("a,b,label\n1,0,x\n0,1,y\n2,2,z\n")
    test.write_text("a,b,label\n1,0,y\n0,1,z\n")
    task = composed_task(
        f"{tmp_path / 'net.py'}:net", "cross_entropy", str(train), test_data=str(test)
    )
    assert whole(task.test)[1].tolist() == [1, 2]
    test.write_text("a,b,label\n1,0,y\n0,1,w\n")
    with pytest.raises(ValueError, match="training data does not have: 'w'"):
        read_alike(train, test)
    numbers = tmp_path / "numbers.csv"
    numbers.write_text("a,b,label\n1,0,0\n0,1,1\n")
    with pytest.raises(ValueError, match="has numbers for classes"):
        read_alike(numbers, test)
    assert whole(read_alike(numbers, numbers))[1].tolist() == [0, 1]


def test_names_that_are_whole_numbers_in_the_test_data_alone_are_names(tmp_path):
    train, test = tmp_path / "train.csv", tmp_path / "test.csv"
    train.write_text("a,label\n1,7\n0,8\n2,LABEL_0\n")
    test.write_text("a,label\n1,8\n")
    assert whole(read_alike(train, test))[1].tolist() == [1]


def test_classes_named_as_placeholders_keep_their_numbers(tmp_path):
    train, test = tmp_path / "train.csv", tmp_path / "test.csv"
    train.write_text("a,label\n1,LABEL_1\n0,LABEL_2\n")
    test.write_text("a,label\n1,LABEL_2\n")
    assert whole(read_alike(train, test))[1].tolist() == [1]


def test_classes_of_test_folders_and_saved_sets_have_the_numbers_of_the_training_data(tmp_path):
    import datasets

    for name in ("train/a", "train/b", "train/c", "test/b", "test/c"):
        (tmp_path / name).mkdir(parents=True)
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / name / "0.png")
    assert whole(read_alike(tmp_path / "train", tmp_path / "test"))[1].tolist() == [1, 2]
    for name, classes in (("one", ["a", "b", "c"]), ("two", ["c", "b"])):
        features = datasets.Features(
            {"x": datasets.Value("float32"), "label": datasets.ClassLabel(names=classes)}
        )
        columns = {"x": [1.0, 2.0], "label": [0, 1]}
        made = datasets.Dataset.from_dict(columns, features=features)
        made.save_to_disk(str(tmp_path / name))
    assert whole(read_alike(tmp_path / "one", tmp_path / "two"))[1].tolist() == [2, 1]


def test_columns_of_test_tables_are_found_by_name(tmp_path):
    train, test = tmp_path / "train.csv", tmp_path / "test.csv"
    train.write_text("a,b,class\n1,2,0\n")
    test.write_text("labels,b,a,class\n5,2,1,0\n")
    inputs, targets = whole(read_alike(train, test))
    assert inputs.tolist() == [[1, 2]]
    assert targets.tolist() == [0]
    test.write_text("b,class\n2,0\n")
    with pytest.raises(ValueError, match="has no column 'a'"):
        read_alike(train, test)


def test_a_class_may_be_called_none_and_gaps_among_numbers_are_still_refused(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,label\n1,None\n2,NA\n3,Some\n")
    found = read_examples(path)
    assert found.facts["classes"] == ["NA", "None", "Some"]
    assert found.facts["inputs"] == ["a"]
    path.write_text("a,label\n1,0\nNA,1\n")
    with pytest.raises(ValueError, match=r"'a' .* missing or infinite value in row 2"):
        read_examples(path)


# --- text -------------------------------------------------------------------------------------


def test_text_is_padded_on_the_right_whatever_the_tokenizer_says(tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    sizes = {"n_positions": 64, "n_embd": 16, "n_layer": 1, "n_head": 2}
    config = GPT2Config(vocab_size=len(WORDS), initializer_range=0.5, **sizes)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt")
    tokenizer_at(tmp_path / "gpt", pad_token="<pad>", padding_side="left")
    data = texts(tmp_path / "t.jsonl")
    opened = [
        open_task(
            composed_task(f"hf:{tmp_path / 'gpt'}", None, str(data)),
            None,
            Settings(batch_size=size),
        )
        for size in (1, 5)
    ]
    one, five = (found.metrics()["train_loss"] for found in opened)
    assert five == pytest.approx(one, rel=1e-5)
    assert "tokenizer itself pads on the left" in opened[0].train.facts["padded_on"]


@pytest.mark.parametrize("pad", [None, 0, 14])
@pytest.mark.parametrize("own", [True, False])
def test_a_model_that_reads_the_last_token_has_one_loss_at_all_batch_sizes(tmp_path, pad, own):
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        GPT2Config,
        GPT2ForSequenceClassification,
    )

    torch.manual_seed(0)
    sizes = {"n_positions": 64, "n_embd": 16, "n_layer": 1, "n_head": 2}
    config = GPT2Config(vocab_size=len(WORDS), initializer_range=0.5, **sizes, num_labels=3)
    config.pad_token_id = pad
    folder = tmp_path / "gpt"
    GPT2ForSequenceClassification(config).save_pretrained(folder)
    tokenizer_at(folder, **({"pad_token": "<pad>"} if own else {}))
    data = texts(tmp_path / "t.jsonl", [0, 1, 2])

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer, losses = AutoTokenizer.from_pretrained(folder), []
    for row in map(json.loads, data.read_text().splitlines()):
        with torch.no_grad():
            logits = model(**tokenizer(row["text"], return_tensors="pt")).logits
        losses.append(
            float(torch.nn.functional.cross_entropy(logits, torch.tensor([row["label"]])))
        )
    for size in (1, 5, 16):
        task = composed_task(f"hf:{folder}", None, str(data))
        found = open_task(task, None, Settings(batch_size=size)).metrics()["train_loss"]
        assert found == pytest.approx(np.mean(losses), rel=1e-5)


def test_the_longest_texts_can_be_found(tmp_path):
    folder = tokenizer_at(tmp_path / "words")
    data = lines(tmp_path / "t.jsonl", [{"text": "a", "label": 0}, {"text": "the cat", "label": 1}])
    assert read_examples(data, DataOptions(tokenizer=folder)).lengths == [1, 7]
    ids = lines(tmp_path / "i.jsonl", [{"input_ids": [3, 4], "label": 0}])
    assert read_examples(ids).lengths == [2]


# --- labels of tokens -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tagger(tmp_path_factory):
    from transformers import BertConfig, BertForTokenClassification

    folder = tmp_path_factory.mktemp("tagger")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    names = {"O": 0, "PER": 1, "LOC": 2}
    config = BertConfig(
        vocab_size=len(WORDS),
        intermediate_size=16,
        label2id=names,
        id2label={number: name for name, number in names.items()},
        **sizes,
    )
    BertForTokenClassification(config).save_pretrained(folder)
    return tokenizer_at(folder, pad_token="<pad>")


def test_labels_of_tokens_have_the_numbers_of_the_model(tmp_path, tagger):
    import datasets

    features = datasets.Features(
        {
            "input_ids": datasets.Sequence(datasets.Value("int64")),
            "labels": datasets.Sequence(datasets.ClassLabel(names=["LOC", "O", "PER"])),
        }
    )
    columns = {"input_ids": [[3, 4, 5], [6, 7]], "labels": [[0, 1, 2], [1, 0]]}
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(str(tmp_path / "saved"))
    expected = [[2, 0, 1], [0, 2, -100]]
    task = composed_task(f"hf:{tagger}", None, str(tmp_path / "saved"))
    assert whole(task.train)["labels"].tolist() == expected
    assert np.isfinite(open_task(task).metrics()["train_loss"])
    rows = [
        {"input_ids": [3, 4, 5], "labels": ["LOC", "O", "PER"]},
        {"input_ids": [6, 7], "labels": ["O", "LOC"]},
    ]
    data = lines(tmp_path / "t.jsonl", rows)
    task = composed_task(f"hf:{tagger}", None, str(data), test_data=str(data))
    assert whole(task.train)["labels"].tolist() == expected
    assert whole(task.test)["labels"].tolist() == expected
    assert task.train.facts["classes"] == ["O", "PER", "LOC"]
    lines(data, [rows[0], {"input_ids": [6], "labels": ["ORG"]}])
    with pytest.raises(ValueError, match="model does not have: 'ORG'"):
        composed_task(f"hf:{tagger}", None, str(data))


def test_numbers_and_ignored_labels_of_tokens_stay(tmp_path, tagger):
    data = lines(tmp_path / "t.jsonl", [{"input_ids": [3, 4], "labels": [2, -100]}])
    task = composed_task(f"hf:{tagger}", None, str(data))
    assert whole(task.train)["labels"].tolist() == [[2, -100]]


def test_words_with_labels_of_tokens_are_refused_in_words(tmp_path, tagger):
    data = lines(tmp_path / "t.jsonl", [{"text": "the cat", "labels": ["O", "PER"]}])
    with pytest.raises(ValueError, match="columns input_ids and labels, since words and tokens"):
        composed_task(f"hf:{tagger}", None, str(data))


# --- images -----------------------------------------------------------------------------------


def vision_model(folder, processor):
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = ViTConfig(image_size=8, patch_size=4, intermediate_size=16, num_labels=2, **sizes)
    ViTForImageClassification(config).save_pretrained(folder)
    if processor:
        settings = {
            "image_processor_type": "ViTImageProcessor",
            "size": {"height": 8, "width": 8},
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.25, 0.5, 1.0],
        }
        (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return f"hf:{folder}"


@pytest.mark.parametrize("axes", [(0, 1, 2, 3), (0, 2, 3, 1)])
def test_the_processor_of_a_model_prepares_arrays_of_images(tmp_path, axes):
    model = vision_model(tmp_path / "vit", processor=True)
    pixels = np.random.default_rng(0).integers(0, 255, (4, 3, 8, 8), dtype=np.uint8)
    path = tmp_path / "x.npz"
    np.savez(path, x=pixels.transpose(axes), y=np.array([0, 1, 1, 0]))
    batch = whole(composed_task(model, None, str(path)).train)
    mean, std = (torch.tensor(given)[:, None, None] for given in ([0.5] * 3, [0.25, 0.5, 1.0]))
    torch.testing.assert_close(batch["pixel_values"], (torch.tensor(pixels) / 255 - mean) / std)
    assert batch["labels"].tolist() == [0, 1, 1, 0]
    np.savez(path, x=pixels / 255, y=np.array([0, 1, 1, 0]))
    with pytest.raises(ValueError, match="takes images as bytes"):
        composed_task(model, None, str(path))
    options = DataOptions(mean=(0.0,) * 3, std=(1.0,) * 3)
    found = composed_task(model, None, str(path), options=options).train
    assert torch.equal(whole(found)[0], torch.tensor(pixels / 255))


def test_grey_images_for_a_model_of_colours_name_the_missing_processor(tmp_path):
    model = vision_model(tmp_path / "vit", processor=False)
    for name in ("a", "b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "images" / name / "0.png")
    with pytest.raises(ValueError, match=r"takes 3 channels.*no preprocessor_config.json"):
        composed_task(model, None, str(tmp_path / "images"))
    found = read_examples(Path(tmp_path / "images"))
    assert found.facts["pixels"] == "divided by 255, no normalisation"


# --- tensors ----------------------------------------------------------------------------------


def test_integer_targets_of_tensors_are_class_numbers():
    inputs, targets = torch.randn(6, 4), torch.arange(6, dtype=torch.int32) % 3
    (batch,) = batches_of((inputs, targets)).batches
    assert batch[1].dtype == torch.int64
    (batch,) = batches_of((inputs, targets[:, None])).batches
    assert batch[1].shape == (6, 1)
    (batch,) = batches_of({"x": inputs, "labels": targets[:, None]}, classes=True).batches
    assert batch["labels"].tolist() == [0, 1, 2, 0, 1, 2]
    task = Task(model=torch.nn.Linear(4, 3), objective="cross_entropy", train=(inputs, targets))
    assert np.isfinite(open_task(task).metrics()["train_loss"])


def test_tables_in_parquet_follow_the_training_data_too(tmp_path):
    pd.DataFrame({"a": [1.0], "b": [2.0], "y": ["q"]}).to_parquet(tmp_path / "train.parquet")
    pd.DataFrame({"b": [2.0], "a": [1.0], "y": ["q"]}).to_parquet(tmp_path / "test.parquet")
    found = read_alike(tmp_path / "train.parquet", tmp_path / "test.parquet")
    assert whole(found)[0].tolist() == [[1, 2]]
