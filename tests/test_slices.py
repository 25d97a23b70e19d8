"""Slices: directions by their definitions, values on a known quadratic, modes, resuming."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn
from torch.nn import functional

from landscape import Probe
from landscape.slices import (
    SliceMismatchError,
    between,
    cosine,
    eigenvectors,
    evaluate_slice,
    gradient,
    momentum,
    orthogonalised,
    plane,
    principal_directions,
    projected,
    random,
)
from landscape.slices.overview import from_record, overview, to_record
from landscape.slices.rows import Rows

CURVATURES = torch.tensor([8.0, 3.0, 0.5, 0.1], dtype=torch.float64)


class Point(nn.Module):
    """Parameters alone."""

    def __init__(self, values):
        super().__init__()
        self.weight = nn.Parameter(torch.as_tensor(values, dtype=torch.float64))

    def forward(self, x):
        return self.weight + 0 * x


def quadratic(model, batch):
    """w'Hw / 2 with H diagonal, the same for every example."""
    return (0.5 * (CURVATURES * model.weight**2).sum()).expand(len(batch))


def bowl(at=(0.0, 0.0, 0.0, 0.0), **settings):
    return Probe(Point(at), quadratic, [torch.zeros(6, 1)], **settings)


def net(seed=0, dtype=torch.float64):
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(27, 3)
    ).to(dtype)
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=source) + 0.2)
        for parameter in model.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=source))
    return model.eval()


def data(seed=1, sizes=(7, 4)):
    source = torch.Generator().manual_seed(seed)
    return [
        (
            torch.randn(size, 1, 5, 5, generator=source, dtype=torch.float64),
            torch.randint(0, 3, (size,), generator=source),
        )
        for size in sizes
    ]


def probe_of(model=None, **settings):
    return Probe(model or net(), "cross_entropy", data(), **settings)


# -- values ---------------------------------------------------------------------------------------


def test_an_anisotropic_quadratic_is_drawn_as_it_is():
    probe = bowl()
    directions = eigenvectors(probe, 2)
    found = evaluate_slice(probe, directions, span=((-1, 2), (-3, 1)), points=(7, 5))
    alpha, beta = np.linspace(-1, 2, 7), np.linspace(-3, 1, 5)
    truth = 4.0 * alpha[:, None] ** 2 + 1.5 * beta[None] ** 2
    assert found.train_loss.dims == ("alpha", "beta")
    np.testing.assert_allclose(found.alpha, alpha)
    np.testing.assert_allclose(found.beta, beta)
    np.testing.assert_allclose(found.train_loss, truth, rtol=1e-6, atol=1e-12)
    assert found.train_loss.sel(alpha=2, beta=0) == pytest.approx(16.0, rel=1e-6)
    np.testing.assert_allclose(found.train_loss_stderr, 0, atol=1e-7)
    assert json.loads(found.attrs["curvatures"]) == pytest.approx([8.0, 3.0], rel=1e-6)
    assert "λ = 8" in found.alpha.attrs["label"]
    assert abs(found.attrs["cosine"]) < 1e-9


def test_curvature_along_eigenvectors_is_the_eigenvalue():
    probe = probe_of()
    directions = eigenvectors(probe, 2)
    step = 1e-3
    values = evaluate_slice(probe, directions, span=(-step, step), points=3).train_loss.values
    second = (
        (values[2, 1] - 2 * values[1, 1] + values[0, 1]) / step**2,
        (values[1, 2] - 2 * values[1, 1] + values[1, 0]) / step**2,
    )
    assert second == pytest.approx([d.info["curvature"] for d in directions], rel=1e-3)


def test_doubling_the_span_doubles_the_distance():
    probe = bowl((0.3, -0.2, 1.0, 2.0))
    direction = random(probe, one_dimensional="tensor")
    near = evaluate_slice(probe, direction, span=(-1, 1), points=3)
    far = evaluate_slice(probe, direction, span=(-2, 2), points=5)
    np.testing.assert_allclose(far.train_loss.sel(alpha=[-1, 0, 1]), near.train_loss)
    at = probe.loss(2 * direction.vector)
    assert far.train_loss.sel(alpha=2) == pytest.approx(at, rel=1e-9)


def test_values_are_those_of_the_probe_and_errors_those_of_the_examples():
    probe = probe_of()
    directions = [random(probe, 0), random(probe, 1, one_dimensional="tensor")]
    found = evaluate_slice(probe, directions, span=(-0.5, 0.5), points=3)
    for row, alpha in enumerate(found.alpha.values):
        for column, beta in enumerate(found.beta.values):
            delta = alpha * directions[0].vector + beta * directions[1].vector
            assert found.train_loss[row, column] == pytest.approx(probe.loss(delta), rel=1e-9)
            share = probe.means(probe.objective.correct, delta[None])[0]
            assert found.train_accuracy[row, column] == pytest.approx(float(share))
    losses = probe.term_losses(directions[0].vector * 0.5)
    error = float(losses.std() / len(losses) ** 0.5)
    assert found.train_loss_stderr.sel(alpha=0.5, beta=0) == pytest.approx(error, rel=1e-9)
    assert found.evaluated.all()


def test_train_and_test_data_and_a_metric_of_ones_own():
    probe, other = probe_of(), data(seed=5, sizes=(9,))
    direction = random(probe)

    def margin(outputs, batch):
        return outputs.gather(1, batch[1][:, None])[:, 0]

    found = evaluate_slice(
        probe, direction, points=3, test=other, metrics={"score": margin}, span=(-0.1, 0.1)
    )
    assert set(found.data_vars) == {
        f"{split}_{name}{end}"
        for split in ("train", "test")
        for name in ("loss", "score")
        for end in ("", "_stderr")
    } | {"evaluated"}
    apart = Probe(net(), "cross_entropy", other)
    assert found.test_loss.sel(alpha=0) == pytest.approx(apart.loss())
    outputs = net()(other[0][0]).detach()
    assert found.test_score.sel(alpha=0) == pytest.approx(float(margin(outputs, other[0]).mean()))


def test_what_is_not_a_number_stays_so():
    class Cliff(Point):
        def forward(self, x):
            return torch.log(self.weight.sum()) + 0 * x

    probe = Probe(Cliff((1.0,)), "mse", [(torch.zeros(4, 1), torch.zeros(4, 1))])
    direction = random(probe, one_dimensional="tensor", normalisation="layer")
    found = evaluate_slice(probe, direction, span=(-3, 3), points=7)
    values = found.train_loss.values
    assert np.isnan(values).any()
    assert np.isinf(values).any()
    assert np.isfinite(values).any()


# -- the model's state ----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["eval", "batch", "recalibrate"])
def test_batch_norm_modes_are_those_of_the_probe_and_nothing_is_touched(mode):
    model = net()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    probe = probe_of(model, batch_norm=mode)
    direction = random(probe)
    found = evaluate_slice(probe, direction, span=(-0.5, 0.5), points=3)
    for alpha in (-0.5, 0.0, 0.5):
        delta = alpha * direction.vector
        value = float(probe.losses(delta[None])[0])
        assert found.train_loss.sel(alpha=alpha) == pytest.approx(value, rel=1e-9), alpha
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    again = evaluate_slice(probe, direction, span=(-0.5, 0.5), points=3)
    xr.testing.assert_identical(found, again)


def test_buffers_can_go_along_to_another_checkpoint():
    one, two = net(0), net(3)
    probe = probe_of(one)
    direction = between(probe, two)
    kept = evaluate_slice(probe, direction, span=(0, 1), points=3)
    moved = evaluate_slice(probe, direction, span=(0, 1), points=3, interpolate_buffers=True)
    end = probe_of(two).loss()
    assert moved.train_loss.sel(alpha=1) == pytest.approx(end, rel=1e-9)
    assert kept.train_loss.sel(alpha=1) != pytest.approx(end, rel=1e-2)
    middle = copy.deepcopy(one)
    with torch.no_grad():
        for name, tensor in middle.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_((one.state_dict()[name] + two.state_dict()[name]) / 2)
    assert moved.train_loss.sel(alpha=0.5) == pytest.approx(probe_of(middle).loss(), rel=1e-9)


def test_an_in_place_first_layer_reaches_neither_data_nor_the_next_point():
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 3)).double()
    batches = [(torch.randn(5, 4, dtype=torch.float64), torch.arange(5) % 3)]
    before = batches[0][0].clone()
    probe = Probe(model, "cross_entropy", batches)
    direction = random(probe)
    found = evaluate_slice(probe, direction, points=3)
    assert torch.equal(batches[0][0], before)
    assert found.train_loss.sel(alpha=1) == pytest.approx(probe.loss(direction.vector))


# -- directions -----------------------------------------------------------------------------------


def test_filter_normalisation_is_its_definition():
    probe = probe_of()
    direction = random(probe, 4)
    draw = torch.randn(probe.size, generator=torch.Generator().manual_seed(4)).double()
    weights, moved, drawn = (
        probe.space.split(vector) for vector in (probe.weights(), direction.vector, draw)
    )
    for name in ("0.weight", "4.weight"):
        for weight, row, own in zip(weights[name], moved[name], drawn[name], strict=True):
            np.testing.assert_allclose(row, own * weight.norm() / own.norm(), rtol=1e-9)
    for name in ("0.bias", "1.weight", "1.bias", "4.bias"):
        assert not moved[name].any()
    layers = probe.space.split(random(probe, 4, normalisation="layer").vector)
    for name in ("0.weight", "4.weight"):
        own = drawn[name] * weights[name].norm() / drawn[name].norm()
        np.testing.assert_allclose(layers[name], own, rtol=1e-9)
    tensors = probe.space.split(random(probe, 4, one_dimensional="tensor").vector)
    assert tensors["1.bias"].norm() == pytest.approx(float(weights["1.bias"].norm()))
    plain = random(probe, 4, normalisation="none", one_dimensional="tensor").vector
    np.testing.assert_allclose(plain, draw)


def test_directions_are_gaussian_seeded_and_may_be_sparse_or_of_some_layers():
    model = nn.Linear(200, 50).double()
    batches = [(torch.randn(3, 200, dtype=torch.float64), torch.arange(3))]
    probe = Probe(model, "cross_entropy", batches)
    vector = random(probe, normalisation="none", only="weight").vector
    drawn = probe.space.split(vector)["weight"].flatten()
    assert abs(drawn.mean()) < 0.04
    assert drawn.std() == pytest.approx(1, abs=0.03)
    assert (drawn < 0).double().mean() == pytest.approx(0.5, abs=0.02)
    assert torch.equal(random(probe, 3).vector, random(probe, 3).vector)
    assert random(probe, 3).record()["hash"] == random(probe, 3).record()["hash"]
    assert random(probe, 3).record()["hash"] != random(probe, 2).record()["hash"]
    sparse = random(probe, density=0.1)
    weights = probe.space.split(sparse.vector)["weight"]
    assert (weights != 0).double().mean() == pytest.approx(0.1, abs=0.02)
    with pytest.raises(ValueError, match="zero"):
        random(probe, only="bias")
    for wrong in ({"normalisation": "rows"}, {"one_dimensional": "w"}, {"density": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            random(probe, **wrong)


def test_gradient_momentum_and_right_angles():
    plain = probe_of()
    probe = probe_of(momentum=torch.linspace(-1, 1, plain.size))
    up = gradient(probe)
    assert up.norm == pytest.approx(1)
    assert torch.allclose(up.vector * probe.gradient().norm(), probe.gradient())
    along = momentum(probe)
    one, two = orthogonalised([up, along])
    assert one is up
    assert abs(cosine(one, two)) < 1e-12
    assert two.norm == pytest.approx(along.norm)
    assert abs(cosine(up, along)) > 1e-4
    with pytest.raises(ValueError, match="no momentum"):
        momentum(plain)
    with pytest.raises(ValueError, match="span"):
        orthogonalised([up, up])
    with pytest.raises(ValueError, match="zero here"):
        gradient(bowl())


def test_a_plane_goes_through_three_checkpoints():
    probe = probe_of()
    others = [net(2), net(5)]
    directions, seen = plane(probe, *others)
    assert [direction.norm for direction in directions] == pytest.approx([1, 1])
    assert abs(cosine(*directions)) < 1e-12
    assert seen.residuals.abs().max() < 1e-10
    for other, coordinates in zip(others, seen.coordinates[1:], strict=True):
        there = sum(c * d.vector for c, d in zip(coordinates, directions, strict=True))
        own = probe.space.flatten(dict(other.named_parameters())).detach() - probe.weights()
        assert torch.allclose(there, own)
        assert there.norm() == pytest.approx(float(own.norm()))
    with pytest.raises(ValueError, match="line"):
        plane(probe, others[0], others[0])


def test_principal_directions_of_a_trajectory():
    probe = bowl((1.0, 2.0, 3.0, 4.0))
    source = torch.Generator().manual_seed(0)
    spread = torch.tensor([4.0, 2.0, 0.1, 0.0], dtype=torch.float64)
    steps = torch.randn(20, 4, generator=source, dtype=torch.float64) * spread
    states = [{"weight": probe.weights() + step} for step in steps]
    directions, seen = principal_directions(probe, states)
    values, vectors = torch.linalg.eigh(steps.T @ steps)
    for direction, vector in zip(directions, vectors.T.flip(0)[:2], strict=True):
        assert abs(direction.vector @ vector) == pytest.approx(1)
    shares = (values.flip(0) / values.sum())[:2]
    assert seen.explained_variance == pytest.approx(shares.tolist())
    off = steps - steps @ vectors[:, -2:] @ vectors[:, -2:].T
    np.testing.assert_allclose(seen.residuals, off.norm(dim=1), atol=1e-9)
    centred, _ = principal_directions(probe, states, centred=True)
    covariance = torch.cov(steps.T)
    assert abs(centred[0].vector @ torch.linalg.eigh(covariance)[1][:, -1]) == pytest.approx(1)
    drawn = evaluate_slice(probe, directions, points=3, trajectory=seen, span=(-5, 5))
    assert drawn.trajectory_alpha.shape == (20,)
    assert drawn.trajectory_label.values[3] == "3"
    assert len(json.loads(drawn.attrs["explained_variance"])) == 2
    again = projected(probe, directions, states)
    assert torch.allclose(again.coordinates, seen.coordinates)
    with pytest.raises(ValueError, match="span 2 directions"):
        principal_directions(probe, states[:1])


def test_a_checkpoint_that_does_not_fit_is_told():
    probe = probe_of()
    with pytest.raises(ValueError, match="end must hold"):
        between(probe, {"0.weight": torch.zeros(2)}, "end")
    with pytest.raises(ValueError, match="same weights"):
        between(probe, net())


# -- files ----------------------------------------------------------------------------------------


def test_a_killed_slice_goes_on_and_writes_the_same(tmp_path):
    probe = probe_of()
    directions = [random(probe, 0), random(probe, 1)]
    whole = evaluate_slice(probe, directions, points=20)
    seen = []

    def kill(count):
        seen.append(count)
        if len(seen) == 3:
            raise KeyboardInterrupt

    path = tmp_path / "slice.nc"
    with pytest.raises(KeyboardInterrupt):
        evaluate_slice(probe, directions, points=20, path=path, advance=kill)
    folder = tmp_path / "slice.nc.partial"
    kept = {file.name: file.stat().st_mtime_ns for file in folder.glob("*.npy")}
    assert len(kept) == 3
    resumed = evaluate_slice(probe, directions, points=20, path=path)
    xr.testing.assert_identical(resumed, whole)
    assert all((folder / name).stat().st_mtime_ns == time for name, time in kept.items())


@pytest.mark.parametrize("change", ["directions", "weights", "data", "variables"])
def test_rows_of_another_slice_are_refused(tmp_path, change):
    probe, path = probe_of(), tmp_path / "slice.nc"
    evaluate_slice(probe, random(probe), points=3, path=path)
    other, settings = probe, {}
    if change == "weights":
        other = probe_of(net(7))
    if change == "data":
        other = Probe(net(), "cross_entropy", data(seed=8))
    if change == "variables":
        settings["metrics"] = {}
    direction = random(other, 1 if change == "directions" else 0)
    with pytest.raises(SliceMismatchError, match=change):
        evaluate_slice(other, direction, points=3, path=path, **settings)


def test_datasets_come_back_from_netcdf(tmp_path):
    probe = probe_of()
    found = evaluate_slice(probe, random(probe), points=4, test=data(seed=9))
    found.to_netcdf(tmp_path / "a.nc", engine="scipy")
    found.to_netcdf(tmp_path / "b.nc", engine="scipy")
    assert (tmp_path / "a.nc").read_bytes() == (tmp_path / "b.nc").read_bytes()
    back = xr.load_dataset(tmp_path / "a.nc", engine="scipy")
    xr.testing.assert_equal(back, found)
    assert back.evaluated.dtype == bool
    assert back.alpha.attrs == found.alpha.attrs


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"span": (1, 1)}, "span"),
        ({"span": (0, float("inf"))}, "span"),
        ({"span": ((0, 1), (0, 1), (0, 1))}, "span"),
        ({"points": 1}, "points"),
        ({"points": 2.5}, "points"),
        ({"tolerance": -1.0}, "tolerance"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    probe = probe_of()
    with pytest.raises(ValueError, match=message):
        evaluate_slice(probe, [random(probe), random(probe, 1)], **settings)


def test_objectives_without_outputs_give_the_loss_alone():
    def loss(model, batch):
        return functional.cross_entropy(model(batch[0]), batch[1], reduction="none")

    probe = Probe(net(), loss, data())
    found = evaluate_slice(probe, random(probe), points=3)
    assert set(found.data_vars) == {"train_loss", "train_loss_stderr", "evaluated"}
    with pytest.raises(ValueError, match="outputs"):
        evaluate_slice(probe, random(probe), metrics={"a": lambda outputs, _: outputs})


def test_slices_come_back_from_json():
    probe = probe_of()
    found = evaluate_slice(probe, [random(probe), random(probe, 1)], points=3)
    found["train_loss"][0, 1], found["train_loss"][1, 1] = np.nan, -np.inf
    record = json.loads(json.dumps(to_record(found), allow_nan=False))
    back = from_record(record)
    for name in found.data_vars:
        np.testing.assert_array_equal(back[name].values, found[name].values)
        assert back[name].dtype == found[name].dtype
    assert back.alpha.attrs == found.alpha.attrs
    assert back.attrs["directions"] == found.attrs["directions"]


def test_the_overview_is_a_line_and_a_plane():
    found = overview(probe_of())
    line, plane_ = from_record(found["line"]), from_record(found["plane"])
    assert line.train_loss.dims == ("alpha",)
    assert "eigenvector" in line.alpha.attrs["label"]
    assert plane_.train_loss.shape == (33, 33)
    assert 0 < plane_.attrs["evaluated_points"] <= 33**2


@pytest.mark.parametrize("order", [(0,), (0, 1), (1, 0), (0, 0, 1)])
def test_infinity_stays_so_however_the_data_are_cut(order):
    parts = [torch.full((4, 1), 1e300, dtype=torch.float64), torch.ones(3, 1).double()]
    batches = [(parts[place], torch.zeros_like(parts[place])) for place in order]

    class Product(Point):
        def forward(self, x):
            return self.weight * x

    probe = Probe(Product((1e-300,)), "mse", batches)
    direction = random(probe, normalisation="none", one_dimensional="tensor")
    found = evaluate_slice(probe, direction, span=(-1, 1), points=3).train_loss.values
    assert np.isposinf(found[[0, 2]]).all()
    assert np.isfinite(found[1])


def test_metrics_must_give_a_value_an_example_under_a_name_of_their_own():
    probe = probe_of()
    for metrics, message in (
        ({"mean": lambda outputs, _: outputs.mean()}, "one an example"),
        ({"loss": lambda outputs, _: outputs[:, 0]}, "another name"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate_slice(probe, random(probe), points=2, metrics=metrics)


def test_another_metric_of_the_same_name_is_another_slice(tmp_path):
    probe, path = probe_of(), tmp_path / "slice.nc"
    for column, expected in ((0, None), (1, "metrics")):
        metrics = {"score": lambda outputs, _, column=column: outputs[:, column]}
        if expected is None:
            evaluate_slice(probe, random(probe), points=3, metrics=metrics, path=path)
        else:
            with pytest.raises(SliceMismatchError, match=expected):
                evaluate_slice(probe, random(probe), points=3, metrics=metrics, path=path)


def test_two_slices_at_once_do_not_mix(tmp_path):
    one, two = (Rows(tmp_path / "rows", {"seed": seed}) for seed in (0, 1))
    points = np.zeros((2, 1))
    assert one.evaluated(points, lambda p: p + 1)[0, 0] == 1
    assert two.evaluated(points, lambda p: p + 2)[0, 0] == 2


def test_buffers_are_interpolated_only_where_a_direction_knows_them():
    probe = probe_of()
    with pytest.raises(ValueError, match="between"):
        evaluate_slice(probe, random(probe), interpolate_buffers=True)


def test_parameters_of_norms_stay_whatever_their_shape():
    model = nn.Sequential(nn.Linear(4, 4), nn.Unflatten(1, (2, 2)), nn.LayerNorm((2, 2)))
    batches = [(torch.randn(5, 4), torch.arange(5)[:, None] % 2 + torch.zeros(5, 2).long())]
    probe = Probe(model, "cross_entropy", batches)
    moved = probe.space.split(random(probe).vector)
    assert moved["0.weight"].any()
    assert not moved["2.weight"].any()


@pytest.mark.parametrize(("mode", "passes"), [("eval", 1), ("recalibrate", 2)])
def test_points_are_counted_as_passes(mode, passes):
    probe = probe_of(batch_norm=mode)
    direction = random(probe)
    with probe.meter() as cost:
        evaluate_slice(probe, direction, points=5, metrics={}, test=data(seed=3))
    assert cost.forwards == 2 * 5 * passes
