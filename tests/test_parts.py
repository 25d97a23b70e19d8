"""The data in parts: cutting, losses and gradients of each, loops and batches, what they cost."""

import copy
from collections import UserDict, namedtuple

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from landscape import Probe, measures
from landscape.evidence import PartsRequest
from landscape.probing import CrossEntropy
from landscape.probing.cutting import cut, cut_pass, examples, stacked

Pair = namedtuple("Pair", ["x", "y"])


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def points(probe, count, seed=0, size=0.3):
    return size * torch.randn(count, probe.size, generator=generator(seed), dtype=probe.dtype)


def numbered(*sizes):
    """Batches whose inputs and targets are running numbers."""
    start, batches = 0, []
    for size in sizes:
        run = torch.arange(start, start + size)
        batches.append((run.double()[:, None], run))
        start += size
    return batches


# -- cutting --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "size", "limit", "expected"),
    [
        ((8,), 4, None, [[0, 1, 2, 3], [4, 5, 6, 7]]),
        ((5, 5, 1), 4, None, [[0, 1, 2, 3], [4, 5, 6, 7]]),
        ((5, 5, 2), 4, None, [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]),
        ((3, 3), 7, None, [[0, 1, 2, 3, 4, 5]]),
        ((3, 3), None, 4, [[0, 1, 2, 3]]),
        ((3, 3), None, None, [[0, 1, 2, 3, 4, 5]]),
        ((3, 3), 2, 5, [[0, 1], [2, 3]]),
        ((2, 2, 2, 2), 3, 6, [[0, 1, 2], [3, 4, 5]]),
        ((7,), 7, 7, [[0, 1, 2, 3, 4, 5, 6]]),
        ((4,), 1, 3, [[0], [1], [2]]),
    ],
)
def test_the_first_points_in_order(sizes, size, limit, expected):
    parts, as_asked = cut_pass(numbered(*sizes), size=size, points=limit, by_example=lambda _: True)
    assert as_asked
    assert [[int(n) for _, y in part for n in y] for part in parts] == expected
    assert [[int(n) for x, _ in part for n in x] for part in parts] == expected


def test_batches_of_every_structure_are_cut():
    tensor = torch.arange(6)
    batch = {"a": tensor, "b": [tensor, (tensor,)], "c": Pair(tensor, tensor), "d": "same"}
    found = cut(batch, 2, 4)
    assert examples(batch) == 6
    assert examples(found) == 2
    assert found["d"] == "same"
    assert isinstance(found["c"], Pair)
    assert found["c"].x.tolist() == found["b"][1][0].tolist() == [2, 3]


def test_what_has_no_common_length_is_not_cut():
    assert examples({"a": torch.zeros(3), "b": torch.zeros(4)}) is None
    assert examples((torch.zeros(3), torch.tensor(1.0))) is None
    assert examples("no tensors") is None
    batches = [(torch.zeros(3, 1), torch.zeros(4)), (torch.zeros(3, 1), torch.zeros(4))]
    parts, as_asked = cut_pass(batches, size=2, points=None, by_example=lambda _: True)
    assert not as_asked
    assert [len(part) for part in parts] == [1, 1]
    parts, as_asked = cut_pass(numbered(4, 4), size=2, points=None, by_example=lambda _: False)
    assert not as_asked
    whole, _ = cut_pass(batches, size=None, points=2, by_example=lambda _: True)
    assert [len(part) for part in whole] == [2]


def test_stacking_needs_the_same_shapes():
    same, dims = stacked([(torch.zeros(2), "a"), (torch.ones(2), "a")])
    assert same[0].tolist() == [[0, 0], [1, 1]]
    assert (same[1], dims) == ("a", (0, None))
    assert stacked([(torch.zeros(2),), (torch.zeros(3),)]) is None
    assert stacked([(torch.zeros(2), "a"), (torch.zeros(2), "b")]) is None
    assert stacked([(torch.zeros(2),), {"x": torch.zeros(2)}]) is None


class Encoding(UserDict):
    """A mapping with attributes, as tokenizers give."""

    def __getattr__(self, name):
        if name == "data":
            raise AttributeError(name)
        return self.data[name]

    def to(self, device):
        return Encoding({key: value.to(device) for key, value in self.data.items()})


class Fields(dict):
    """A dictionary with attributes."""

    def __getattr__(self, name):
        return self[name]


@pytest.mark.parametrize("kind", [Encoding, Fields])
def test_a_cut_mapping_keeps_its_type(kind):
    def loss(model, batch):
        return functional.cross_entropy(model(batch.x), batch.y, reduction="none")

    x, y = torch.randn(6, 4, generator=generator()), torch.tensor([0, 1, 2, 0, 1, 2])
    probe = Probe(nn.Linear(4, 3), loss, [kind(x=x, y=y)])
    assert measures.get("sam-gap", m=2).compute(probe).value > 0


def test_what_goes_with_each_example_is_cut_along_or_not_at_all():
    """A list of one entry an example must not be longer than the tensors it belongs to."""

    def loss(model, batch):
        weights = torch.tensor(batch["weights"])
        return weights * functional.cross_entropy(model(batch["x"]), batch["y"], reduction="none")

    x, y = torch.randn(6, 4, generator=generator()), torch.tensor([0, 1, 2, 0, 1, 2])
    batch = {"x": x, "y": y, "weights": [1.0, 2.0, 3.0, 1.0, 2.0, 3.0]}
    parts = Probe(nn.Linear(4, 3), loss, [batch]).parts(2)
    assert torch.isfinite(parts.base_losses()).all()


# -- losses and gradients -------------------------------------------------------------------------


def batch_norm_net():
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3))
    draws = generator(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.6 * torch.randn(parameter.shape, generator=draws))
        model[1].running_mean.copy_(torch.linspace(-1, 1, 6))
        model[1].running_var.copy_(torch.linspace(0.5, 2, 6))
    batches = [
        (torch.randn(n, 4, generator=draws), torch.randint(0, 3, (n,), generator=draws))
        for n in (8, 8)
    ]
    return model, batches


def directly(model, batches, space, point, mode="eval"):
    """Loss and gradient of the mean over batches, the plain way, on a fresh copy."""
    model = copy.deepcopy(model).to(point.dtype)
    with torch.no_grad():
        named = dict(model.named_parameters())
        for name, value in space.split(point).items():
            named[name].copy_(value)
    for batch_norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm1d)):
        if mode == "recalibrate":
            batch_norm.momentum = None  # cumulative average, of batches of one size
            batch_norm.reset_running_stats()
    model.train(mode != "eval")
    if mode == "recalibrate":
        with torch.no_grad():
            for x, _ in batches:
                model(x.to(point.dtype))
        model.eval()
    losses = []
    for x, y in batches:
        inputs = x.to(point.dtype) if x.is_floating_point() else x
        losses.append(functional.cross_entropy(model(inputs), y, reduction="none"))
    loss = torch.cat(losses).mean()
    found = torch.autograd.grad(loss, [named[name] for name in space.names])
    return float(loss.detach()), torch.cat([part.reshape(-1) for part in found])


@pytest.mark.parametrize("products", ["loop", "batched"])
@pytest.mark.parametrize("name", ["mlp", "conv-bn-eval", "attention", "tied", "uneven-batches"])
def test_parts_against_plain_pytorch(named_case, name, products):
    model, _, batches = named_case(name).make()
    probe = named_case(name).probe(products=products)
    parts = probe.parts(2, 4)
    assert len(parts) == 2
    which = [0, 1, 1, 0, 1]
    deltas = points(probe, 5)
    losses, gradients = parts.losses_and_gradients(deltas, which)
    np.testing.assert_allclose(parts.losses(deltas, which), losses, rtol=1e-5)
    x, y = batches[0]
    for row, part in enumerate(which):
        own = [(x[2 * part : 2 * part + 2], y[2 * part : 2 * part + 2])]
        loss, gradient = directly(model, own, probe.space, probe.weights() + deltas[row])
        assert float(losses[row]) == pytest.approx(loss, rel=1e-4)
        torch.testing.assert_close(gradients[row], gradient, rtol=1e-3, atol=1e-5)
    base = parts.base_losses()
    at_base, slopes = parts.losses_and_gradients(None, [0, 1])
    torch.testing.assert_close(at_base, base, rtol=1e-5, atol=1e-6)
    zero = torch.zeros(2, probe.size, dtype=probe.dtype)
    torch.testing.assert_close(parts.losses_and_gradients(zero, [0, 1])[1], slopes)


def test_loop_and_batches_agree(model_case):
    """Also where a part reaches over the end of a batch, and where all points share one part."""
    loop, batched = (model_case.probe(products=way) for way in ("loop", "batched"))
    deltas = points(loop, 6)
    for size, wanted in ((None, [0] * 6), (3, [0] * 6), (1, [0, 1, 2, 0, 1, 2])):
        if size == 1 and model_case.name == "callable":
            continue  # one_hot looks at its data, which vmap forbids
        pieces = [probe.parts(size) for probe in (loop, batched)]
        which = [part % len(pieces[0]) for part in wanted]
        found = [part.losses_and_gradients(deltas, which) for part in pieces]
        torch.testing.assert_close(found[1][0], found[0][0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(found[1][1], found[0][1], rtol=1e-4, atol=1e-5)
        plain = [part.losses(deltas, which) for part in pieces]
        torch.testing.assert_close(plain[1], plain[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("products", ["loop", "batched"])
def test_the_checkpoint_asked_for_twice(named_case, products):
    parts = named_case("mlp").probe(products=products).parts(4)
    losses, gradients = parts.losses_and_gradients(None, [1, 1])
    assert losses[0] == losses[1]
    assert torch.equal(gradients[0], gradients[1])


def test_one_part_of_all_is_the_whole(named_case):
    probe = named_case("uneven-batches").probe()
    deltas = points(probe, 3)
    for size, limit in ((None, None), (11, None), (None, 11), (100, 100)):
        parts = probe.parts(size, limit)
        assert len(parts) == 1
        torch.testing.assert_close(parts.losses(deltas, [0] * 3), probe.losses(deltas))
        gradient = parts.losses_and_gradients(deltas[:1], [0])[1][0]
        torch.testing.assert_close(gradient, probe.gradient(deltas[0]))


@pytest.mark.parametrize("products", ["loop", "batched"])
@pytest.mark.parametrize("mode", ["batch", "recalibrate"])
def test_batch_norm_modes_against_plain_pytorch(mode, products):
    model, batches = batch_norm_net()
    probe = Probe(model, "cross_entropy", batches, batch_norm=mode, products=products)
    deltas = points(probe, 2)
    parts = probe.parts(8)
    losses, gradients = parts.losses_and_gradients(deltas, [0, 1])
    for row in range(2):
        point = probe.weights() + deltas[row]
        loss, gradient = directly(model, [batches[row]], probe.space, point, mode)
        assert float(losses[row]) == pytest.approx(loss, rel=1e-4)
        # Recalibrated statistics are estimated from the part, by n - 1, and held in the gradient.
        torch.testing.assert_close(gradients[row], gradient, rtol=1e-3, atol=1e-5)
        loss, _ = directly(model, batches, probe.space, point, mode)
        assert float(probe.losses(deltas[row, None])[0]) == pytest.approx(loss, rel=1e-4)
    torch.testing.assert_close(parts.losses(deltas, [0, 1]), losses, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", ["eval", "batch", "recalibrate"])
def test_means_of_a_metric_are_of_the_same_function_as_the_losses(mode):
    model, batches = batch_norm_net()
    probe = Probe(model, "cross_entropy", batches, batch_norm=mode)

    def loss(outputs, batch):
        return functional.cross_entropy(outputs, batch[1], reduction="none")

    deltas = points(probe, 3, size=1.0)
    torch.testing.assert_close(probe.means(loss, deltas), probe.losses(deltas), rtol=1e-5, atol=0)


# -- weights of terms -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ignoring():
    """Sequences of four labels, some of them ignored; none in the first two sequences."""
    draws = generator(5)
    x = torch.randn(6, 4, 5, generator=draws)
    y = torch.randint(0, 3, (6, 4), generator=draws)
    y[2, 1:], y[3, 0] = -1, -1
    model = nn.Sequential(
        nn.Linear(5, 3), nn.Flatten(1), nn.Linear(12, 12), nn.Unflatten(1, (3, 4))
    )
    return model, (x, y)


def test_ignored_targets_are_no_terms(ignoring):
    model, (x, y) = ignoring
    probe = Probe(model, CrossEntropy(ignore_index=-1), [(x[:2], y[:2]), (x[2:], y[2:])])
    parts = probe.parts(2)
    assert parts.counts == [8, 4, 8]
    deltas = points(probe, 3)
    found = parts.losses(deltas, [0, 1, 2])
    for row in range(3):
        point = probe.space.split(probe.weights() + deltas[row])
        with torch.no_grad():
            outputs = torch.func.functional_call(model, point, (x[2 * row : 2 * row + 2],))
        loss = functional.cross_entropy(outputs, y[2 * row : 2 * row + 2], ignore_index=-1)
        assert float(found[row]) == pytest.approx(float(loss), rel=1e-5)


def test_a_part_without_terms_does_not_spoil_the_others(ignoring):
    model, (x, y) = ignoring
    y = y.clone()
    y[5] = -1  # the last sequence has no label at all
    probe = Probe(model, CrossEntropy(ignore_index=-1), [(x[:2], y[:2]), (x[2:], y[2:])])
    for name in ("fisher-trace", "gradient-covariance-trace"):
        result = measures.get(name).compute(probe)
        assert np.isfinite(result.value)
    result = measures.get("sam-gap", m=1).compute(probe)
    assert np.isfinite(result.value)


def test_the_first_points_without_any_term(ignoring):
    """Two sequences of which nothing is asked, and only they are looked at."""
    model, (x, y) = ignoring
    y = y[[4, 5, 0, 1]].clone()
    y[:2] = -1
    probe = Probe(model, CrossEntropy(ignore_index=-1), [(x[:4], y)])
    for name in ("sam-gap", "max-sharpness", "average-sharpness", "fisher-trace"):
        result = measures.get(name, points=2).compute(probe)
        assert not result.status.measured
        assert result.message


def test_outputs_that_are_not_numbers_are_not_right():
    """Argmax of NaN is 0, the label."""
    model = nn.Linear(2, 3)
    probe = Probe(model, "cross_entropy", [(torch.ones(4, 2), torch.zeros(4, dtype=torch.long))])
    broken = torch.full((1, probe.size), torch.nan)
    assert float(probe.means(probe.objective.correct, broken)[0]) == 0


# -- cost and state -------------------------------------------------------------------------------


def test_passes_are_metered_in_fractions(named_case):
    probe = named_case("uneven-batches").probe(products="loop")  # 11 terms
    parts = probe.parts(4)
    _ = parts.counts
    deltas = points(probe, 3)
    with probe.meter() as cost:
        parts.losses(deltas, [0, 1, 1])
    assert cost.forwards == pytest.approx(12 / 11)
    assert cost.gradients == cost.products == 0
    with probe.meter() as cost:
        parts.losses_and_gradients(deltas, [0, 1, 1])
    assert cost.gradients == pytest.approx(12 / 11)
    assert cost.forwards == 0
    with probe.meter() as cost:
        probe.losses(deltas)
        probe.gradient(deltas[0])
    assert (cost.forwards, cost.gradients) == pytest.approx((3, 1))
    with probe.meter() as cost:
        probe.evidence(PartsRequest(size=4))
    assert (cost.forwards, cost.gradients) == pytest.approx((8 / 11, 8 / 11))


@pytest.mark.parametrize("mode", ["eval", "batch", "recalibrate"])
def test_the_model_and_the_random_state_stay_the_same(mode):
    model, batches = batch_norm_net()
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state, data = torch.get_rng_state(), [tensor.clone() for pair in batches for tensor in pair]
    probe = Probe(model, "cross_entropy", batches, batch_norm=mode)
    base = probe.loss()
    for products in (probe.parts(4), probe.parts(None, 6)):
        deltas = points(probe, 4)
        which = [row % len(products) for row in range(4)]
        products.losses_and_gradients(deltas, which)
        products.losses(deltas, which)
    measures.get("max-sharpness", m=8, steps=3, restarts=2).compute(probe)
    measures.get("average-sharpness", samples=4).compute(probe)
    measures.get("fisher-trace").compute(probe)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(
        torch.equal(a, b) for a, b in zip(data, [t for p in batches for t in p], strict=True)
    )
    zero = torch.zeros(1, probe.size)
    assert float(probe.losses(zero)[0]) == pytest.approx(base, rel=1e-6)


@pytest.mark.parametrize("config", [{"size": 0}, {"points": 0}, {"size": -1}, {"points": -2}])
def test_no_parts_of_no_examples(named_case, config):
    with pytest.raises(ValueError, match="must be positive"):
        named_case("mlp").probe().parts(**config)
    with pytest.raises(ValueError, match="must be positive"):
        PartsRequest(**config)
