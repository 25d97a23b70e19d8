"""What stands in a batch: entries with a meaning, weights, objects, labels, other layouts."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import generator, seeded
from torch import nn
from torch.nn import functional

import landscape
from landscape import CallableObjective, Probe, Task, open_task
from landscape.probing import CrossEntropy, WeightDecay
from landscape.probing.batches import Batches, place, size_of
from landscape.probing.cutting import cut, examples
from landscape.probing.nesting import tensors

N = 12


def data():
    source = generator(3)
    x = torch.randn(N, 5, generator=source, dtype=torch.float64)
    return x, torch.arange(N) % 3, 0.2 + torch.rand(N, generator=source, dtype=torch.float64)


def net():
    return seeded(nn.Linear(5, 3).double())


def each(model, x, y):
    return functional.cross_entropy(model(x), y, reduction="none").detach()


def in_two(*entries):
    return [tuple(entry[:7] for entry in entries), tuple(entry[7:] for entry in entries)]


# -- terms are real numbers -----------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("ignored", [-100, 2])
def test_class_weights_are_torchs(smoothing, ignored):
    x, y, _ = data()
    weight, model = torch.tensor([0.3, 0.9, 1.7], dtype=torch.float64), net()
    settings = {"ignore_index": ignored, "label_smoothing": smoothing}
    truth = functional.cross_entropy(model(x), y, weight=weight, **settings)
    slope = torch.autograd.grad(truth, list(model.parameters()))
    probe = Probe(model, CrossEntropy(weight=weight, **settings), in_two(x, y))
    assert probe.loss() == pytest.approx(float(truth.detach()), rel=1e-12)
    assert probe.terms == pytest.approx(float(weight[y[y != ignored]].sum()), rel=1e-12)
    flat = torch.cat([part.reshape(-1) for part in slope])
    torch.testing.assert_close(probe.gradient(), flat, rtol=1e-10, atol=0)
    v = torch.ones(probe.size, dtype=torch.float64)
    difference = (probe.gradient(1e-6 * v) - probe.gradient(-1e-6 * v)) / 2e-6
    torch.testing.assert_close(probe.hvp(v), difference, rtol=1e-6, atol=1e-8)


def test_weights_of_examples_weigh_everything_and_parts_add_up():
    x, y, w = data()
    model = net()
    losses = each(model, x, y)
    truth = float((w * losses).sum() / w.sum())

    def own(model, batch):
        return functional.cross_entropy(model(batch[0]), batch[1], reduction="none")

    def sums(model, batch):
        return (batch[2] * own(model, batch)).sum(), batch[2].sum()

    batches = in_two(x, y, w)
    named = Probe(model, "cross_entropy", batches, inputs=0, targets=1, weights=2)
    called = Probe(model, own, batches, weights=2)
    summed = Probe(model, sums, batches)
    for probe in (named, called, summed):
        assert probe.loss() == pytest.approx(truth, rel=1e-12)
        parts = probe.parts(1)
        assert len(parts) == N
        counts = torch.tensor(parts.counts, dtype=torch.float64)
        torch.testing.assert_close(counts, w)
        torch.testing.assert_close(parts.base_losses(), losses)
        assert float((counts * parts.base_losses()).sum() / counts.sum()) == pytest.approx(truth)
        zero = torch.zeros(2, probe.size, dtype=torch.float64)
        assert probe.losses(zero)[0] == pytest.approx(truth, rel=1e-12)
    assert named.terms == pytest.approx(float(w.sum()), rel=1e-12)
    v = torch.ones(named.size, dtype=torch.float64)
    for other in (called, summed):
        torch.testing.assert_close(named.hvp(v), other.hvp(v))
    found = named.scratch().evaluate(torch.zeros(1, 0).double(), [], named.batches, {})
    assert float(found.mean["loss"][0]) == pytest.approx(truth, rel=1e-12)
    residuals = w * (losses - truth)
    stderr = float((residuals.square().sum() * N / (N - 1)).sqrt() / w.sum())
    assert float(found.stderr["loss"][0]) == pytest.approx(stderr, rel=1e-9)
    assert named.loss_stderr() == pytest.approx(stderr, rel=1e-9)


def test_a_task_takes_weights_by_position_by_key_and_as_a_function():
    x, y, w = data()
    losses = each(net(), x, y)
    truth = float((w * losses).sum() / w.sum())
    forms = [
        ((x, y, w), {"inputs": 0, "targets": 1, "weights": 2}),
        ({"image": x, "label": y, "w": w}, {"inputs": "image", "targets": "label", "weights": "w"}),
        ([SimpleNamespace(a=x, b=y, c=w)], {"inputs": "a", "targets": "b", "weights": "c"}),
        ([(w, y, x)], {"inputs": 2, "targets": 1, "weights": lambda batch: batch[0]}),
    ]
    for train, entries in forms:
        task = Task(model=net, objective="cross_entropy", train=train, **entries)
        assert open_task(task).probe.loss() == pytest.approx(truth, rel=1e-12)
    task = Task(model=net, objective="cross_entropy", train=(x, y, w), targets=1, weights=2)
    settings = landscape.Settings(samples=5, batch_size=2)
    assert open_task(task, settings=settings).probe.terms < float(w.sum())


def test_weight_decay_and_scales_count_once_under_weights():
    x, y, w = data()
    plain = Probe(net(), "cross_entropy", [(x, y, w)], inputs=0, targets=1, weights=2)
    decayed = Probe(
        net(), WeightDecay(CrossEntropy(), 0.3), [(x, y, w)], inputs=0, targets=1, weights=2
    )
    weights = plain.weights()
    assert decayed.loss() == pytest.approx(plain.loss() + 0.15 * float(weights @ weights))
    v = torch.ones(plain.size, dtype=torch.float64)
    torch.testing.assert_close(decayed.ggnvp(v), plain.ggnvp(v) + 0.3 * v)


def test_weights_of_another_kind_are_refused_in_words():
    x, y, w = data()
    with pytest.raises(ValueError, match="finite and not negative"):
        Probe(net(), "cross_entropy", [(x, y, -w)], inputs=0, targets=1, weights=2)
    with pytest.raises(ValueError, match="one an example or one a term"):
        Probe(net(), "cross_entropy", [(x, y, w[:5])], inputs=0, targets=1, weights=2)
    with pytest.raises(TypeError, match="weights=5 names no entry"):
        Probe(net(), "cross_entropy", [(x, y, w)], inputs=0, targets=1, weights=5)
    with pytest.raises(ValueError, match="one entry for each of the 3 classes"):
        Probe(net(), CrossEntropy(weight=[1.0, 2.0]), [(x, y)])
    with pytest.raises(ValueError, match="none negative"):
        CrossEntropy(weight=[1.0, -2.0])


# -- entries --------------------------------------------------------------------------------------


class Masked(nn.Module):
    """Takes a mask where one is given."""

    def __init__(self):
        super().__init__()
        self.linear = net()

    def forward(self, x, mask=None):
        return self.linear(x if mask is None else x * mask[:, None])


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = net()

    def forward(self, left, right):
        return self.linear(left + right)


class FromDict(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = net()

    def forward(self, batch):
        return self.linear(batch["image"])


Triple = namedtuple("Triple", ["label", "x", "index"])


def test_a_third_entry_without_a_meaning_is_refused():
    x, y, w = data()
    for model in (net(), Masked(), nn.Sequential(net())):
        for third in (w, torch.arange(N)):
            with pytest.raises(TypeError, match=r"such as inputs=0, targets=1 \(and weights=2"):
                Probe(model, "cross_entropy", [(x, y, third)])
    truth = float(each(net(), x, y).mean())
    probe = Probe(Masked(), "cross_entropy", [(x, y, w)], inputs=0, targets=1)
    assert probe.loss() == pytest.approx(truth)
    two = Probe(Two(), "cross_entropy", [(x, x, y)])  # which cannot be called otherwise
    assert two.loss() == pytest.approx(float(each(net(), 2 * x, y).mean()))


def test_entries_by_name_that_forward_does_not_take_are_left_out_and_told(caplog):
    x, y, _ = data()
    truth = float(each(net(), x, y).mean())
    named = {"x": x, "label": y, "index": torch.arange(N), "path": ["a"] * N}
    forms = [
        (Masked(), named),
        (Masked(), Triple(y, x, torch.arange(N))),
        (net(), {"image": x, "label": y, "index": torch.arange(N), "path": ["a"] * N}),
        (net(), {"image": x, "label": y}),
        (FromDict(), {"image": x, "label": y}),
        (FromDict(), {"image": x, "label": y, "other": x}),
        (Masked(), SimpleNamespace(x=x, y=y, index=torch.arange(N))),
    ]
    for model, batch in forms:
        assert Probe(model, "cross_entropy", [batch]).loss() == pytest.approx(truth)
    caplog.clear()
    probe = Probe(Masked(), "cross_entropy", [named, named])
    assert caplog.messages == [
        "index, path of the batches left out: Masked.forward takes no such input"
    ]
    assert caplog.messages[0] in probe.provenance()["handled"]
    with pytest.raises(TypeError, match="weights='sample_weight'"):
        Probe(Masked(), "cross_entropy", [{"x": x, "label": y, "sample_weight": x[:, 0]}])
    with pytest.raises(TypeError, match="such as inputs='a'"):
        Probe(net(), "cross_entropy", [{"a": x, "b": x, "label": y}])


# -- labels ---------------------------------------------------------------------------------------


def test_class_numbers_of_any_kind_are_the_same_labels():
    x, y, _ = data()
    truth = Probe(net(), "cross_entropy", [(x, y)])
    one_hot = functional.one_hot(y, 3)
    forms = [
        *(y.to(kind) for kind in (torch.int32, torch.uint8, torch.int16, torch.int8)),
        *(y.to(torch.float32), y.double(), y[:, None], y[:, None].float()),
        *(one_hot, one_hot.int(), one_hot.bool(), y.numpy(), y.int().numpy()),
    ]
    for labels in forms:
        probe = Probe(net(), "cross_entropy", [(x, labels)], products="batched")
        assert probe.loss() == pytest.approx(truth.loss(), rel=1e-12)
        right = probe.term_values(probe.objective.correct)
        assert torch.equal(right, truth.term_values(truth.objective.correct))
        zero = torch.zeros(2, probe.size, dtype=torch.float64)
        assert float(probe.losses(zero)[1]) == pytest.approx(truth.loss())
    yes = Probe(net(), "cross_entropy", [(x, y == 1)])
    assert yes.loss() == pytest.approx(float(each(net(), x, (y == 1).long()).mean()))


def test_labels_that_are_no_classes_are_refused_in_words():
    x, y, _ = data()
    with pytest.raises(ValueError, match="not whole"):
        Probe(net(), "cross_entropy", [(x, y + 0.5)])
    with pytest.raises(ValueError, match="one-hot"):
        Probe(net(), "cross_entropy", [(x, torch.ones(N, 3).long())])
    with pytest.raises(ValueError, match="class number each"):
        Probe(net(), "cross_entropy", [(x, y[:5])])
    with pytest.raises(TypeError, match="expects batches, got a single target"):
        Probe(net(), "cross_entropy", [(x[row], y[row]) for row in range(N)])
    with pytest.raises(TypeError, match="expects batches, got a single target"):
        Probe(net(), "cross_entropy", [(x[row], int(y[row])) for row in range(N)])


# -- what a loss returns --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("returned", "error", "words"),
    [
        (lambda _: None, TypeError, "got NoneType; is a return missing"),
        (lambda losses: {"loss": losses}, TypeError, "got dict with loss"),
        (lambda losses: [losses], TypeError, r"got list of 1 \(Tensor\)"),
        (lambda losses: (losses.sum(), 3, 4), TypeError, "got tuple of 3"),
        (lambda _: 3, TypeError, "plain number has no gradient"),
        (lambda losses: losses.sum().item(), TypeError, "leave out .item"),
        (lambda losses: (losses.sum(), None), TypeError, "number of terms must be a number"),
        (lambda losses: (losses.sum(), -1.0), ValueError, "must not be negative"),
        (lambda losses: (losses, 3), TypeError, "two scalars"),
        (lambda losses: losses.long(), TypeError, "real floating numbers"),
        (lambda losses: losses / 0, ValueError, "loss at the checkpoint is inf"),
    ],
)
def test_wrong_returns_of_a_loss_are_told(returned, error, words):
    x, y, _ = data()

    def loss(model, batch):
        return returned(functional.cross_entropy(model(batch[0]), batch[1], reduction="none"))

    with pytest.raises(error, match=words):
        Probe(net(), loss, [(x, y)])


def test_an_output_that_is_returned_as_the_loss_is_told(caplog):
    x, y, _ = data()
    Probe(net(), lambda model, batch: model(batch[0]), [(x, y)])
    assert "returns the model's output of shape (12, 3)" in caplog.text
    assert CallableObjective(lambda *_: None, couples_examples=True).couples_examples
    coupled = CallableObjective(lambda *_: None, couples_examples=True)
    assert WeightDecay(coupled, 0.1).couples_examples
    assert not CrossEntropy().couples_examples


# -- objects, layouts -----------------------------------------------------------------------------


class Plain:
    def __init__(self, x, y):
        self.x, self.y, self.me = x, y, self


class Slots:
    __slots__ = ("x", "y")

    def __init__(self, x, y):
        self.x, self.y = x, y


@dataclass(frozen=True)
class Frozen:
    x: torch.Tensor
    y: torch.Tensor


def nested(x, y):
    return {"deep": [SimpleNamespace(x=x, y=y)], "note": "text", "scale": 2.0}


@pytest.mark.parametrize("kind", [Plain, Slots, Frozen, SimpleNamespace, nested])
def test_tensors_in_objects_are_hashed_moved_cut_and_not_touched(kind):
    def made(x, y):
        return SimpleNamespace(x=x, y=y) if kind is SimpleNamespace else kind(x, y)

    def loss(model, batch):
        found = batch["deep"][0] if isinstance(batch, dict) else batch
        return functional.cross_entropy(model(found.x), found.y, reduction="none")

    x, y, _ = data()
    batch, model = made(x.float(), y), net().float()
    probes = [Probe(model, loss, [made(z.float(), y)]) for z in (x, x + 1)]
    assert probes[0].identity()["data"] != probes[1].identity()["data"]
    probe = Probe(model, loss, [batch], dtype=torch.float64)
    assert [t.dtype for t in tensors(batch)] == [torch.float32, torch.int64]
    truth = each(model.double(), x.float().double(), y)
    torch.testing.assert_close(probe.parts(1).base_losses(), truth)

    class Shuffled:
        def __iter__(self):
            return iter([made(x.float()[torch.randperm(N)], y)])

    with pytest.raises(ValueError, match="shuffling"):
        Probe(net().float(), loss, Shuffled())


@pytest.mark.filterwarnings("ignore:.*beta state", "ignore:.*prototype stage")
def test_sparse_and_nested_tensors_and_arrays_are_hashed_and_cast():
    x, _, _ = data()
    rows = [x[:2], x[2:6]]
    forms = [
        *(x.to_sparse(), x.to_sparse_csr(), x.to_sparse_csc()),
        *(torch.nested.as_nested_tensor(rows, layout=torch.jagged), x.numpy()),
        *({"scale": 2.0}, np.float64(2.0)),
    ]
    others = [
        *((2 * x).to_sparse(), (2 * x).to_sparse_csr(), (2 * x).to_sparse_csc()),
        torch.nested.as_nested_tensor([2 * row for row in rows], layout=torch.jagged),
        *(2 * x.numpy(), {"scale": 3.0}, np.float64(3.0)),
    ]
    for form, other in zip(forms, others, strict=True):
        (one,), (same,), (two,) = (
            Batches([[batch]], "cpu", torch.float64).walk()[0] for batch in (form, form, other)
        )
        assert one == same != two
        placed = place([form], "cpu", torch.float32, copy=True)[0]
        if isinstance(form, torch.Tensor):
            assert (placed.dtype, placed.layout) == (torch.float32, form.layout)
            assert size_of([placed]) > 0
    design = (x.to_sparse(), torch.arange(N))
    for layout in (torch.sparse_coo, torch.sparse_csr):
        part = cut((x.to_sparse(layout=layout), torch.arange(N)), 3, 5)
        torch.testing.assert_close(part[0].to_dense(), x[3:5])
    assert examples(design) == N
    assert examples((torch.eye(N).to_sparse(), torch.arange(N))) is None  # rather a graph


def test_a_sparse_design_matrix_is_measured_like_a_dense_one():
    class Sparse(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = net()

        def forward(self, x):
            return torch.sparse.mm(x, self.linear.weight.T) + self.linear.bias

    x, y, _ = data()
    dense = Probe(net(), "cross_entropy", [(x, y)])
    sparse = Probe(Sparse(), "cross_entropy", [(x.to_sparse(), y)])
    assert sparse.loss() == pytest.approx(dense.loss())
    torch.testing.assert_close(sparse.parts(1).base_losses(), dense.parts(1).base_losses())


# -- examples on another dimension ----------------------------------------------------------------


class Recurrent(nn.Module):
    def __init__(self, *, each_step):
        super().__init__()
        self.run, self.out, self.each_step = nn.LSTM(5, 4), nn.Linear(4, 3), each_step
        seeded(self).double()

    def forward(self, x):  # (time, N, 5)
        states = self.run(x)[0]
        return self.out(states if self.each_step else states[-1])


def tagged(model, batch):
    return functional.cross_entropy(
        model(batch[0]).flatten(0, 1), batch[1].flatten(), reduction="none"
    )


def test_sequence_first_data_are_cut_along_their_own_dimension():
    x = torch.randn(7, 6, 5, generator=generator(1), dtype=torch.float64)
    tags, labels = torch.randint(0, 3, (7, 6), generator=generator(2)), torch.arange(6) % 3
    forms = [
        (Recurrent(each_step=True), tagged, (x, tags), 1),
        (Recurrent(each_step=False), "cross_entropy", (x, labels), 1),
        (Recurrent(each_step=False), "cross_entropy", (x, labels), (1, 0)),
        (Recurrent(each_step=False), "cross_entropy", {"x": x, "y": labels}, {"x": 1, "y": 0}),
    ]
    for model, objective, batch, dim in forms:
        probe = Probe(model, objective, [batch], example_dim=dim)
        parts = probe.parts(1)
        assert (len(parts), parts.as_asked) == (6, True)
        assert float(parts.base_losses().mean()) == pytest.approx(probe.loss(), rel=1e-12)
        rows = []
        for place_of in range(6):
            one = cut(batch, place_of, place_of + 1, dim)
            rows.append(Probe(model, objective, [one]).gradient())
        truth = torch.stack(rows)
        spread = float((truth - truth.mean(0)).square().sum() / 5)
        found = landscape.measures.get("gradient-covariance-trace").compute(probe)
        assert found.value == pytest.approx(spread, rel=1e-9)
    task = Task(model=Recurrent(each_step=True), objective=tagged, train=(x, tags), example_dim=1)
    opened = open_task(task, settings=landscape.Settings(samples=4, batch_size=3))
    shapes = [tuple(batch[0].shape) for batch in opened.probe.batches]
    assert shapes == [(7, 3, 5), (7, 1, 5)]
    assert opened.probe.identity()["example_dim"] == "1"
    with pytest.raises(ValueError, match="example_dim must be the dimension"):
        Task(model=net, objective=tagged, train=(x, tags), example_dim="time")
