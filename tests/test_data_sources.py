"""Data from files, datasets and loaders, as batches in a fixed order."""

from __future__ import annotations

import json
import sys
from collections import namedtuple

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler

from landscape import Probe
from landscape.probing.batches import Batches
from landscape.tasks import digits_data
from landscape.tasks.data import DataOptions, batches_of, read_examples
from landscape.tasks.data.picking import joined, pick
from landscape.tasks.data.saved_datasets import dataset_examples


def digits(count=60):
    """Real images in whole sixteenths (count, 64), and their labels."""
    images, labels = digits_data()[0]
    return (images[:count] * 16).flatten(1), labels[:count]


def whole(found):
    """All examples of a source in one batch."""
    return found.batch(range(len(found)))


def walked(batched):
    return list(batched.batches)


def equal(first, second):
    """Whether two lists of batches are the same tensors."""
    flat = [
        [
            tensor
            for batch in batches
            for tensor in (batch.values() if isinstance(batch, dict) else batch)
        ]
        for batches in (first, second)
    ]
    return len(flat[0]) == len(flat[1]) and all(map(torch.equal, *flat))


def refused(path, words, **options):
    """The one sentence or two that a source is refused with."""
    with pytest.raises(ValueError, match=words) as caught:
        read_examples(path, DataOptions(**options))
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- arrays -----------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [("x", "y"), ("X", "Y"), ("images", "labels")])
def test_digits_come_back_from_npz(tmp_path, names):
    images, labels = digits()
    np.savez(tmp_path / "digits.npz", **{names[0]: images.numpy(), names[1]: labels.numpy()})
    inputs, targets = whole(read_examples(tmp_path / "digits.npz"))
    assert torch.equal(inputs, images)
    assert torch.equal(targets, labels)


def test_npz_arrays_are_named_and_split_by_the_options(tmp_path):
    path = tmp_path / "a.npz"
    x, y = np.arange(8.0).reshape(4, 2), np.array([0, 1, 1, 0])
    np.savez(path, x_train=x, y_train=y, x_test=x + 1, y_test=1 - y, left=x + 2, kind=y)
    inputs, targets = whole(read_examples(path, DataOptions(split="test")))
    assert torch.equal(inputs, torch.tensor(x + 1))
    assert targets.tolist() == [1, 0, 0, 1]
    both = whole(read_examples(path, DataOptions(inputs=("left", "x_train"), target="kind")))
    assert [tensor.dtype for tensor in both] == [torch.float64, torch.float64, torch.int64]
    assert "choose with split: train, test" in refused(path, "several splits")
    assert "x_train" in refused(path, "no array 'z'", inputs=("z",), target="kind")


def test_bytes_are_pixels_and_integers_stay(tmp_path):
    pixels = np.full((2, 3, 4, 4), 255, dtype=np.uint8)
    np.savez(tmp_path / "p.npz", x=pixels, y=np.array([1, 0]))
    options = DataOptions(mean=(0.5, 0.0, 0.0), std=(0.5, 0.5, 1.0))
    found = read_examples(tmp_path / "p.npz", options)
    assert whole(found)[0][0, :, 0, 0].tolist() == [1, 2, 1]
    assert found.facts["divided_by_255"] == ["x"]
    assert "channels" in refused(tmp_path / "p.npz", "mean and std", mean=(0.1,), std=(1.0,))
    np.savez(tmp_path / "t.npz", x=np.array([[1, 2], [3, 4]]), y=np.array(["no", "yes"]))
    tokens, targets = whole(read_examples(tmp_path / "t.npz"))
    assert tokens.dtype == torch.int64
    assert targets.tolist() == [0, 1]


def test_broken_archives_are_one_line(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=np.zeros((3, 2)), y=np.zeros(2, dtype=int))
    assert "x has 3, y has 2" in refused(path, "equally many")
    np.savez(path, x=np.array([[1.0], [np.nan]]), y=np.zeros(2, dtype=int))
    refused(path, "'x' .* missing or infinite value in row 2")
    np.savez(path, x=np.array([{"a": 1}], dtype=object), y=np.zeros(1, dtype=int))
    refused(path, "cannot be read as an .npz file of plain arrays .*pickle")
    np.savez(path, x=np.zeros((30, 20)), y=np.zeros(30))
    path.write_bytes(path.read_bytes()[:900])
    refused(path, "cannot be read")
    path.write_bytes(b"")
    refused(path, "is empty")
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    refused(path, "single array")
    refused(tmp_path / "none.npz", "no data at")
    (tmp_path / "a.xyz").write_text("1")
    refused(tmp_path / "a.xyz", "no known kind; give .npz, .csv")


# --- tables -----------------------------------------------------------------------------------


def digits_frame():
    images, labels = digits()
    frame = pd.DataFrame(images.numpy() / 3, columns=[f"p{index}" for index in range(64)])
    return frame.assign(label=labels.numpy()), images / 3, labels


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_digits_come_back_from_tables(tmp_path, suffix):
    frame, images, labels = digits_frame()
    path = tmp_path / f"digits.{suffix}"
    if suffix == "csv":
        frame.to_csv(path)  # with the row numbers that pandas adds
    elif suffix == "parquet":
        frame.to_parquet(path)
    else:
        rows = [
            {"image": image.reshape(8, 8).tolist(), "label": int(label)}
            for image, label in zip(images, labels, strict=True)
        ]
        path.write_text("\n".join(map(json.dumps, rows)))
        images = images.reshape(-1, 8, 8)
    inputs, targets = whole(read_examples(path))
    assert torch.equal(inputs, images)
    assert torch.equal(targets, labels)
    assert inputs.dtype == torch.float32


def test_targets_are_classes_or_numbers_by_kind_and_objective(tmp_path):
    path = tmp_path / "t.csv"
    frame = pd.DataFrame(
        {"x": [1, 2, 3], "real": [0.5, 1.0, 2.0], "whole": [0.0, 2.0, 1.0]}
    ).assign(name=["cat", "ant", "cat"], truth=[True, False, True])
    frame.to_csv(path, index=False)

    def targets(target, **options):
        return whole(read_examples(path, DataOptions(target=target, inputs=("x",), **options)))[1]

    assert targets("real").dtype == torch.float32
    assert targets("whole").dtype == torch.float32
    assert targets("whole", objective="cross_entropy").tolist() == [0, 2, 1]
    assert targets("truth").tolist() == [1, 0, 1]
    assert targets("truth", objective="bce").dtype == torch.float32
    assert targets("x", objective="mse").dtype == torch.float32
    assert targets("name").tolist() == [1, 0, 1]
    assert targets("name", label_names={"cat": 4, "dog": 0, "ant": 2}).tolist() == [4, 2, 4]
    assert targets("name", label_names={"LABEL_0": 0, "LABEL_1": 1}).tolist() == [1, 0, 1]
    chosen = {"inputs": ("x",)}
    refused(path, "0.5 in row 1", target="real", objective="cross_entropy", **chosen)
    refused(path, "'cat', no number", target="name", objective="mse", **chosen)
    refused(path, "does not have: 'cat'", target="name", label_names={"ant": 0}, **chosen)


def test_a_list_of_labels_a_row_is_a_float_target(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text('{"x": [1, 2], "y": [1, 0, 1]}\n\n{"x": [3, 4], "y": [0, 0, 1]}\n')
    inputs, targets = whole(read_examples(path, DataOptions(objective="bce")))
    assert inputs.tolist() == [[1, 2], [3, 4]]
    assert targets.tolist() == [[1, 0, 1], [0, 0, 1]]
    assert targets.dtype == torch.float32


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("a,b\n1,2\n", "no column named labels or label .* of a, b"),
        ("a,y\n", "holds no rows"),
        ("y\n1\n", "no column beside the target"),
        ("a,y\n1,2\n3,4,5\n", "line 3"),
        ("a,y\n1,2,3\n4,5,6\n", "more fields than its header"),
        ("a,y\n1,2\n,4\n", "column 'a' .* missing or infinite value in row 2"),
        ("a,y\n1,2\n3\n", "column 'y' .* missing or infinite value in row 2"),
        ("city,name,y\nBonn,Ann,1\n", "no numbers in 'city', 'name'; encode"),
        ("a,y\n1,-1\n", "holds -1 in row 1, no class number"),
    ],
)
def test_broken_csv_is_one_line(tmp_path, text, words):
    path = tmp_path / "t.csv"
    path.write_text(text)
    refused(path, words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("\n", "is empty"),
        ('{"x": 1, "y": 0}\n{"x": 2,\n', "line 2 .* is no JSON"),
        ('{"x": 1, "y": 0}\n[1]\n', "line 2 .* holds a list"),
        ('{"x": 1, "y": 0}\n{"y": 1}\n', "column 'x' .* row 2"),
        ('{"x": [1, 2], "y": 0}\n{"x": [1], "y": 1}\n', "different lengths, see row 2"),
        ('{"x": [[1, 2], [1]], "y": 0}\n', "different lengths, see row 1"),
        ('{"x": [1, null], "y": 0}\n', "column 'x'"),
        ('{"x": 1, "y": 0}\n{"x": "two", "y": 1}\n', "text among its numbers"),
        ('{"x": {"a": 1}, "y": 0}\n', "text among its numbers"),
    ],
)
def test_broken_jsonl_is_one_line(tmp_path, text, words):
    path = tmp_path / "t.jsonl"
    path.write_text(text)
    refused(path, words)


def test_nested_lists_of_parquet_are_inputs_of_their_own(tmp_path):
    path = tmp_path / "t.parquet"
    grids = [np.arange(4.0).reshape(2, 2) + at for at in range(3)]
    frame = pd.DataFrame({"grid": [grid.tolist() for grid in grids], "w": [1, 2, 3]})
    frame.assign(y=pd.Categorical(["b", "a", "b"])).to_parquet(path)
    inputs, weights, targets = whole(read_examples(path))
    assert torch.equal(inputs, torch.tensor(np.stack(grids), dtype=torch.float32))
    assert weights.tolist() == [1, 2, 3]
    assert targets.tolist() == [1, 0, 1]
    frame.assign(y=[0, 1, 0], grid=[[[1], [2, 3]]] * 3).to_parquet(path)
    refused(path, "different lengths")


def test_other_broken_tables_are_one_line(tmp_path):
    frame, _, _ = digits_frame()
    path = tmp_path / "t.parquet"
    frame.to_parquet(path)
    path.write_bytes(path.read_bytes()[:500])
    refused(path, "cannot be read as Parquet")
    (tmp_path / "t.csv").write_bytes(b"a,y\n\xff\xfe,1\n")
    refused(tmp_path / "t.csv", "UTF-8")
    frame.to_csv(tmp_path / "t.csv")
    refused(tmp_path / "t.csv", "no column 'there'", target="there")
    idle = {"image_size": (2, 2), "max_length": 3}
    refused(tmp_path / "t.csv", "takes no max_length and no image_size; leave", **idle)
    refused(tmp_path / "t.csv", "without splits", split="train")


# --- images -----------------------------------------------------------------------------------


def image_folder(root, count=40):
    """The digits as PNG files in folders of classes; tensors in the order of the files."""
    images, labels = digits(count)
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        folder = root / str(int(label))
        folder.mkdir(parents=True, exist_ok=True)
        pixels = image.reshape(8, 8).numpy().astype(np.uint8) * 15
        Image.fromarray(pixels).save(folder / f"{index:03}.png")
    order = torch.argsort(labels, stable=True)
    return images[order].reshape(-1, 1, 8, 8) * 15 / 255, labels[order]


def test_digits_come_back_from_folders_of_png(tmp_path):
    images, labels = image_folder(tmp_path / "train")
    found = read_examples(tmp_path / "train")
    inputs, targets = whole(found)
    assert torch.equal(inputs, images)
    assert torch.equal(targets, labels)
    assert found.facts["classes"] == [str(digit) for digit in range(10)]
    inputs, _ = whole(read_examples(tmp_path, DataOptions(split="train", mean=(0.5,), std=(0.25,))))
    assert torch.equal(inputs, (images - 0.5) / 0.25)
    assert "choose one with split: train" in refused(tmp_path, "no images")
    reverse = {str(digit): 9 - digit for digit in range(10)}
    options = DataOptions(label_names=reverse, image_size=(4, 6), mean=(0,) * 3, std=(1,) * 3)
    inputs, targets = whole(read_examples(tmp_path / "train", options))
    assert inputs.shape == (40, 3, 4, 6)
    assert torch.equal(targets, 9 - labels)


def test_images_of_several_sizes_or_broken_ones_are_one_line(tmp_path):
    image_folder(tmp_path)
    Image.fromarray(np.zeros((5, 7, 3), dtype=np.uint8)).save(tmp_path / "3" / "zz.jpg")
    refused(tmp_path, r"\(8, 8\) and \(5, 7\) \(height, width\); give image_size")
    inputs, _ = whole(read_examples(tmp_path, DataOptions(image_size=(8, 8))))
    assert inputs.shape == (41, 3, 8, 8)  # one image of colours makes all of them such
    Image.fromarray(np.zeros((8, 8), dtype=np.uint16)).save(tmp_path / "3" / "zz.png")
    refused(tmp_path, "more than 8 bits", image_size=(8, 8))
    (tmp_path / "3" / "zz.png").write_text("no image")
    refused(tmp_path, "cannot be read", image_size=(8, 8))
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "3" / "zz.png")
    content = (tmp_path / "3" / "zz.png").read_bytes()
    (tmp_path / "3" / "zz.png").write_bytes(content[: len(content) // 2])
    found = read_examples(tmp_path, DataOptions(image_size=(8, 8)))
    with pytest.raises(ValueError, match=r"zz.png cannot be read .*truncated"):
        whole(found)
    (tmp_path / "empty").mkdir()
    refused(tmp_path, "class folders 'empty'")


def test_a_processor_gives_pixel_values(tmp_path):
    images, labels = image_folder(tmp_path / "images", 20)
    settings = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": 8, "width": 8},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.25, 0.5, 1.0],
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    batch = whole(read_examples(tmp_path / "images", DataOptions(processor=tmp_path)))
    expected = (images - 0.5) / torch.tensor([0.25, 0.5, 1.0])[:, None, None]
    torch.testing.assert_close(batch["pixel_values"], expected)
    assert torch.equal(batch["labels"], labels)
    refused(tmp_path / "images", "no preprocessor_config.json", processor=tmp_path / "images")


# --- text -------------------------------------------------------------------------------------

WORDS = ["the", "cat", "dog", "sat", "ran", "on", "a", "mat", "far", "away", "and", "came", "back"]
TEXTS = ["the cat sat on the mat", "a dog ran", "the dog came back and sat on a mat", "far away"]


def tokenizer_at(path, **special):
    """A tokenizer of whole words in a directory."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = ["[UNK]", *special.values(), *WORDS]
    words = Tokenizer(models.WordLevel({word: at for at, word in enumerate(names)}, "[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    made = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", **special)
    made.save_pretrained(path)
    return path, made


@pytest.fixture(scope="module")
def masked_tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("bert")
    return tokenizer_at(path, pad_token="[PAD]", mask_token="[MASK]")


def text_file(path, rows=TEXTS, **more):
    lines = [
        {"text": text, **{name: values[at] for name, values in more.items()}}
        for at, text in enumerate(rows)
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def test_text_is_tokenized_padded_and_cut(tmp_path, masked_tokenizer):
    directory, tokenizer = masked_tokenizer
    path = text_file(tmp_path / "t.jsonl", label=["b", "a", "b", "a"])
    found = read_examples(path, DataOptions(tokenizer=directory))
    batch = found.batch([0, 1])
    assert batch["input_ids"].shape == (2, 6)
    assert batch["attention_mask"].sum(1).tolist() == [6, 3]
    assert tokenizer.decode(batch["input_ids"][0]) == TEXTS[0]
    assert batch["input_ids"][1, 3:].tolist() == [tokenizer.pad_token_id] * 3
    assert batch["labels"].tolist() == [1, 0]
    assert found.facts["max_length"] == 512
    assert found.facts["classes"] == ["a", "b"]
    short = read_examples(path, DataOptions(tokenizer=directory, max_length=4))
    assert whole(short)["input_ids"].shape == (4, 4)
    refused(path, "needs a tokenizer", text="text")
    refused(path, "no column 'body'", text="body", tokenizer=directory)
    refused(path, "no tokenizer directory", tokenizer=tmp_path / "none")
    refused(path, "no tokenizer that can be loaded", tokenizer=tmp_path)


def test_pairs_of_sentences_are_encoded_together(tmp_path, masked_tokenizer):
    directory, tokenizer = masked_tokenizer
    path = text_file(tmp_path / "t.jsonl", other=TEXTS[::-1], label=[0, 1, 0, 1])
    options = DataOptions(tokenizer=directory, inputs=("text", "other"))
    batch = whole(read_examples(path, options))
    assert tokenizer.decode(batch["input_ids"][0]).startswith(f"{TEXTS[0]} {TEXTS[3]}")


def test_causal_labels_are_the_tokens_even_where_the_end_pads(tmp_path):
    directory, tokenizer = tokenizer_at(tmp_path / "gpt", eos_token="<end>")
    path = text_file(tmp_path / "t.jsonl", ["the cat <end>", "a dog ran far away"])
    found = read_examples(path, DataOptions(tokenizer=directory, objective="causal_lm"))
    batch = whole(found)
    assert found.facts["padded_with"] == "<end>"
    end = tokenizer.eos_token_id
    assert batch["input_ids"][0, 2:].tolist() == [end] * 3
    assert batch["labels"][0, 2:].tolist() == [end, -100, -100]  # the real end is a term
    assert torch.equal(batch["labels"][1], batch["input_ids"][1])


def test_masks_depend_on_seed_and_example_alone(tmp_path, masked_tokenizer):
    directory, tokenizer = masked_tokenizer
    texts = [" ".join(WORDS[at % 13 :] + WORDS * (at % 4)) for at in range(24)]
    path = text_file(tmp_path / "t.jsonl", texts)

    def labels(samples=None, batch_size=24, seed=0):
        options = DataOptions(tokenizer=directory, objective="masked_lm", seed=seed)
        found = batches_of(read_examples(path, options), samples=samples, batch_size=batch_size)
        rows = []
        for batch in found.batches:
            chosen = batch["labels"] != -100
            assert (batch["input_ids"][chosen] == tokenizer.mask_token_id).all()
            assert not (batch["input_ids"][~chosen] == tokenizer.mask_token_id).any()
            for ids, mask, told in zip(
                batch["labels"], batch["attention_mask"], chosen, strict=True
            ):
                assert int(told.sum()) == max(1, round(0.15 * int(mask.sum())))
                rows.append([(int(at), int(ids[at])) for at in told.nonzero()[:, 0]])
        return rows

    assert labels() == labels(batch_size=5)
    subset = labels(samples=9)
    assert len(subset) == 9
    assert all(row in labels() for row in subset)
    assert labels() != labels(seed=1)
    plain, _ = tokenizer_at(tmp_path / "plain", pad_token="[PAD]")
    refused(path, "no mask token", tokenizer=plain, objective="masked_lm")


def test_sequences_to_sequences_ignore_the_padding_of_the_target(tmp_path, masked_tokenizer):
    directory, tokenizer = masked_tokenizer
    path = tmp_path / "t.jsonl"
    rows = [{"source": "a cat", "target": "the dog ran"}, {"source": "far", "target": "away"}]
    path.write_text("\n".join(map(json.dumps, rows)))
    batch = whole(read_examples(path, DataOptions(tokenizer=directory, objective="seq2seq")))
    assert tokenizer.decode(batch["labels"][0]) == "the dog ran"
    assert batch["labels"][1].tolist() == [*tokenizer("away")["input_ids"], -100, -100]
    assert batch["input_ids"].shape == (2, 2)


def test_text_that_is_missing_or_gives_no_token_is_one_line(tmp_path, masked_tokenizer):
    directory, _ = masked_tokenizer
    options = DataOptions(tokenizer=directory)
    for text, words in (("", "row 2 .* no tokens"), (None, "missing"), (3, "hold text, got 3")):
        path = text_file(tmp_path / "t.jsonl", ["a cat", text], label=[0, 1])
        with pytest.raises(ValueError, match=words):
            whole(read_examples(path, options))


# --- saved datasets ---------------------------------------------------------------------------


def test_saved_numbers_text_and_splits(tmp_path, masked_tokenizer):
    import datasets

    directory, _ = masked_tokenizer
    frame, images, labels = digits_frame()
    numbers = datasets.Dataset.from_pandas(frame)
    numbers.save_to_disk(str(tmp_path / "numbers"))
    inputs, targets = whole(read_examples(tmp_path / "numbers"))
    assert torch.equal(inputs, images)
    assert torch.equal(targets, labels)
    saved = batches_of(read_examples(tmp_path / "numbers"), samples=7)
    assert equal(walked(batches_of(numbers, samples=7)), walked(saved))
    kinds = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    )
    text = datasets.Dataset.from_dict({"text": TEXTS, "label": [1, 0, 0, 1]}, features=kinds)
    datasets.DatasetDict({"train": text, "test": text.select([2])}).save_to_disk(
        str(tmp_path / "text")
    )
    found = read_examples(tmp_path / "text", DataOptions(tokenizer=directory, split="train"))
    assert whole(found)["labels"].tolist() == [1, 0, 0, 1]
    assert found.facts["classes"] == ["bad", "good"]
    model = {"good": 0, "bad": 5}
    options = DataOptions(tokenizer=directory, split="train", label_names=model)
    assert whole(read_examples(tmp_path / "text", options))["labels"].tolist() == [0, 5, 5, 0]
    refused(tmp_path / "text", "choose with split: train, test", tokenizer=directory)
    (tmp_path / "numbers" / "state.json").write_text("{")
    refused(tmp_path / "numbers", "cannot be loaded as a saved dataset")


def test_saved_tokens_are_used_as_they_are_and_padded(tmp_path):
    import datasets

    columns = {"input_ids": [[5, 6, 7], [8, 9]], "labels": [[5, -100, 7], [8, 9]]}
    datasets.Dataset.from_dict(columns).save_to_disk(str(tmp_path / "tokens"))
    batch = whole(read_examples(tmp_path / "tokens"))
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 9, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch["labels"].tolist() == [[5, -100, 7], [8, 9, -100]]
    datasets.Dataset.from_dict({"input_ids": columns["input_ids"]}).save_to_disk(
        str(tmp_path / "bare")
    )
    batch = whole(read_examples(tmp_path / "bare", DataOptions(objective="causal_lm")))
    assert batch["labels"].tolist() == [[5, 6, 7], [8, 9, -100]]
    refused(tmp_path / "bare", "no column named labels")
    refused(tmp_path / "bare", "needs a tokenizer", objective="masked_lm")


def test_tokens_with_one_label_or_many_real_ones_a_row():
    import datasets

    columns = {"input_ids": [[5, 6], [7]], "label": [1, 0], "many": [[1.0, 0.0], [0.5, 1.0]]}
    made = datasets.Dataset.from_dict(columns)
    (batch,) = batches_of(made).batches
    assert batch["labels"].tolist() == [1, 0]
    options = DataOptions(objective="bce", target="many")
    assert whole(dataset_examples(made, options))["labels"].tolist() == columns["many"]
    with pytest.raises(TypeError, match="streamed"):
        batches_of(made.to_iterable_dataset())
    with pytest.raises(ValueError, match="choose with split: train"):
        batches_of(datasets.DatasetDict(train=made))


def test_a_missing_library_is_named(tmp_path, masked_tokenizer, monkeypatch):
    directory, _ = masked_tokenizer
    image_folder(tmp_path / "images", 3)
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "state.json").write_text("{}")
    pd.DataFrame({"x": [1], "y": [1]}).to_parquet(tmp_path / "t.parquet")
    text = text_file(tmp_path / "t.jsonl", label=[0, 1, 0, 1])
    for library in ("transformers", "PIL", "datasets", "pyarrow"):
        monkeypatch.setitem(sys.modules, library, None)
    refused(text, "pip install transformers", tokenizer=directory)
    refused(tmp_path / "images", "pip install pillow")
    refused(tmp_path / "saved", "pip install datasets")
    refused(tmp_path / "t.parquet", "pip install pyarrow")


def test_saved_images_equal_those_of_folders(tmp_path):
    import datasets

    images, labels = image_folder(tmp_path / "folder", 20)
    files = sorted(map(str, (tmp_path / "folder").glob("*/*.png")))
    made = datasets.Dataset.from_dict({"image": files, "label": labels.tolist()})
    made.cast_column("image", datasets.Image()).save_to_disk(str(tmp_path / "saved"))
    inputs, targets = whole(read_examples(tmp_path / "saved"))
    assert torch.equal(inputs, images)
    assert torch.equal(targets, labels)


# --- batches ----------------------------------------------------------------------------------


class Squares(Dataset):
    def __len__(self):
        return 23

    def __getitem__(self, index):
        return torch.tensor([float(index), index**2]), index % 3


class Stream(IterableDataset):
    def __iter__(self):
        return (Squares()[index] for index in range(23))


def stream_of_batches():
    for batch in DataLoader(Squares(), batch_size=4):
        yield tuple(batch)


def tensors_of_squares():
    return next(iter(DataLoader(Squares(), batch_size=23)))


SOURCES = {
    "dataset": Squares,
    "loader": lambda: DataLoader(Squares(), batch_size=6),
    "stream": lambda: DataLoader(Stream(), batch_size=5),
    "list": lambda: list(stream_of_batches()),
    "function": lambda: stream_of_batches,
    "factory": lambda: Squares,
    "tensors": lambda: tuple(tensors_of_squares()),
    "arrays": lambda: tuple(tensor.numpy() for tensor in tensors_of_squares()),
}


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_gives_the_same_subset_in_order(name):
    expected_rows = torch.randperm(23, generator=torch.Generator().manual_seed(4))[:11].sort()
    inputs, labels = tensors_of_squares()
    expected = inputs[expected_rows.values], labels[expected_rows.values]
    for batch_size in (None, 1, 3, 11, 100):
        found = batches_of(SOURCES[name](), samples=11, data_seed=4, batch_size=batch_size)
        batches = walked(found)
        joined = [torch.cat([batch[part] for batch in batches]) for part in (0, 1)]
        assert torch.equal(joined[0], expected[0])
        assert torch.equal(joined[1], expected[1])
        assert equal(batches, walked(found))
        sizes = [len(batch[1]) for batch in batches]
        assert sizes[:-1] == [found.batch_size] * (len(sizes) - 1)
        assert batch_size is None or found.batch_size == min(batch_size, 11)
        assert (found.examples, found.facts["of"], found.facts["data_seed"]) == (11, 23, 4)
    for wrong in (0, 24):
        with pytest.raises(ValueError, match=f"samples must lie between 1 and 23, got {wrong}"):
            batches_of(SOURCES[name](), samples=wrong)


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_can_be_probed_whole(name):
    found = batches_of(SOURCES[name](), default_batch_size=7)
    sizes = [len(batch[1]) for batch in found.batches]
    assert sum(sizes) == 23
    expected = {"loader": 6, "stream": 5, "list": 4, "function": 4, "tensors": 7}.get(name, 7)
    assert sizes[0] == expected
    model = torch.nn.Linear(2, 3)
    with torch.no_grad():
        model.weight.fill_(0.01)
        model.bias.zero_()
    probe = Probe(model, "cross_entropy", found.batches)
    assert probe.loss() == pytest.approx(np.log(3), rel=1e-6)


def test_a_seed_chooses_the_subset_and_all_examples_stay_in_order():
    rows = [batches_of(Squares(), samples=9, data_seed=seed).batches for seed in (0, 0, 1)]
    assert equal(list(rows[0]), list(rows[1]))
    assert not equal(list(rows[0]), list(rows[2]))
    (everything,) = batches_of(Squares(), samples=23).batches
    assert everything[0][:, 0].tolist() == list(range(23))


@pytest.mark.parametrize(
    "sampling",
    [
        {"shuffle": True},
        {"sampler": torch.utils.data.SubsetRandomSampler(range(20))},
        {"sampler": torch.utils.data.WeightedRandomSampler(torch.ones(23), 23)},
        {
            "batch_sampler": torch.utils.data.BatchSampler(
                RandomSampler(Squares()), batch_size=4, drop_last=False
            )
        },
        {"sampler": RandomSampler(Squares()), "batch_size": None},
    ],
)
def test_a_loader_that_shuffles_is_refused_and_no_randomness_is_used(sampling):
    loader = DataLoader(Squares(), **sampling)
    state = torch.get_rng_state()
    with pytest.raises(ValueError, match=r"shuffles \(\w+\).*shuffle=False"):
        batches_of(loader)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_loader_keeps_its_collation_order_and_dropped_rest():
    loader = DataLoader(
        Squares(),
        batch_size=5,
        drop_last=True,
        collate_fn=lambda items: {"labels": torch.tensor([int(label) for _, label in items])},
    )
    assert batches_of(loader).batches is loader
    found = batches_of(loader, batch_size=8)
    assert found.facts["of"] == 20
    assert [len(batch["labels"]) for batch in found.batches] == [8, 8, 4]
    backwards = DataLoader(Squares(), batch_size=4, sampler=range(22, -1, -1))
    first = next(iter(batches_of(backwards, samples=22, data_seed=1).batches))
    assert first[0][:, 0].diff().max() < 0


def test_data_that_can_be_walked_once_only_are_refused():
    for once in (stream_of_batches(), iter([]), map(str, [])):
        with pytest.raises(TypeError, match="one-shot"):
            batches_of(once)
    with pytest.raises(TypeError, match="takes no arguments"):
        batches_of(lambda path: [path])
    for wrong in (3, torch.ones(3), "digits", {"x": [1]}):
        with pytest.raises(TypeError, match="data must be"):
            batches_of(wrong)


def test_a_function_is_called_on_every_walk():
    calls = []

    def fresh():
        calls.append(1)
        yield from stream_of_batches()

    found = batches_of(fresh)
    assert equal(walked(found), walked(found))
    assert len(calls) == 2
    assert "called on every walk" in found.facts["source"]
    assert isinstance(Batches(found.batches, torch.device("cpu"), torch.float32), Batches)


def test_tensors_of_unequal_length_and_batches_that_cannot_be_cut_are_refused():
    with pytest.raises(ValueError, match=r"first dimension, got shapes \(3, 2\), \(2,\)"):
        batches_of((torch.ones(3, 2), torch.ones(2)))
    with pytest.raises(ValueError, match="cannot be cut into examples"):
        batches_of([(torch.ones(3, 2), torch.tensor(1.0))], samples=2)
    assert batches_of([(torch.ones(3, 2), torch.tensor(1.0))]).examples is None
    for empty in ([], (torch.ones(0, 2), torch.ones(0))):
        with pytest.raises(ValueError, match="no example"):
            batches_of(empty)
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        batches_of(Squares(), batch_size=0)


def test_nested_batches_are_picked_from_and_regrouped_where_they_go_together():
    def batch(start, length, width):
        ids = torch.arange(start, start + length)
        return {
            "input_ids": ids[:, None].expand(length, width),
            "extra": [(ids * 2, [f"name {at}" for at in ids.tolist()])],
            "scale": 3,
            "labels": ids,
        }

    source = [batch(0, 3, 4), batch(3, 3, 4), batch(6, 2, 5)]
    regrouped = list(batches_of(source, batch_size=5).batches)
    # Two widths do not go together in one batch.
    assert [tuple(part["input_ids"].shape) for part in regrouped] == [(5, 4), (1, 4), (2, 5)]
    picked = list(batches_of(source, samples=5, data_seed=3).batches)
    rows = torch.cat([part["labels"] for part in picked]).tolist()
    assert len(rows) == 5
    assert rows == sorted(rows)
    for part in regrouped + picked:
        doubled, names = part["extra"][0]
        assert torch.equal(doubled, part["labels"] * 2)
        assert names == [f"name {at}" for at in part["labels"].tolist()]
        assert torch.equal(part["input_ids"][:, 0], part["labels"])
        assert part["scale"] == 3


def test_examples_are_picked_from_batches_of_their_own_type():
    from transformers import BatchEncoding

    pair = namedtuple("pair", "x y")
    named = pick(pair(torch.arange(6).reshape(3, 2), torch.arange(3)), [2, 0])
    assert isinstance(named, pair)
    assert named.x.tolist() == [[4, 5], [0, 1]]
    encoded = BatchEncoding({"input_ids": torch.arange(6).reshape(3, 2)})
    both = joined(encoded, pick(encoded, [1]))
    assert isinstance(both, BatchEncoding)
    assert both["input_ids"].tolist() == [[0, 1], [2, 3], [4, 5], [2, 3]]
    assert encoded["input_ids"].shape == (3, 2)
    assert joined(encoded, dict(encoded)) is None
    assert joined((torch.ones(2), "a"), (torch.ones(2), "b")) is None


def test_examples_of_a_file_are_read_anew_in_the_same_order(tmp_path):
    image_folder(tmp_path, 30)
    found = batches_of(read_examples(tmp_path), samples=13, default_batch_size=6)
    assert [len(labels) for _, labels in found.batches] == [6, 6, 1]
    assert equal(walked(found), walked(found))
    assert found.facts["source"] == str(tmp_path)
    json.dumps(found.facts)


def test_options_are_checked():
    for wrong, words in (
        ({"objective": "causal-lm"}, "objective must be one of"),
        ({"mean": (0.5,)}, "go together"),
        ({"mean": (0.5,), "std": (0.0,)}, "std must be positive"),
        ({"max_length": 0}, "at least 1"),
        ({"seed": -1}, "not be negative"),
        ({"inputs": ()}, "at least one"),
    ):
        with pytest.raises(ValueError, match=words):
            DataOptions(**wrong)
