"""Refinement of slices: exactness, true errors against the tolerance, holes, and falling back."""

from itertools import product

import numpy as np
import pytest

from landscape.slices.refinement import refine
from landscape.slices.surface import Surface, nested_levels


class Counted:
    """A function of the coordinates that remembers the points it was asked for."""

    def __init__(self, *functions):
        self.functions = functions
        self.points = []

    def __call__(self, points):
        self.points += [tuple(point) for point in points]
        return np.stack([function(*points.T) for function in self.functions], -1)


def axes_of(*counts, span=1.0):
    return [np.linspace(-span, span, count) for count in counts]


def dense(function, axes):
    return function(*np.meshgrid(*axes, indexing="ij"))


def true_error(found, function, axes, index=0):
    truth = dense(function, axes)
    return np.abs(found.values[index] - truth).max() / np.ptp(truth)


def cubic(x):
    return 2 * x**3 - x**2 + 0.5 * x - 3


def smooth(x, y):
    """Anisotropic, and different in its two arguments."""
    return np.exp(1.5 * x) * (1 + 0.3 * y) + 0.2 * np.sin(3 * y) + 5 * x**2


def ridge(x, y):
    """A kink across the plane: refined along it only."""
    return np.abs(x - 0.4 * y - 0.07) + 0.3 * x**2


@pytest.mark.parametrize("count", [7, 20, 33, 51, 100])
def test_cubic_is_exact_in_one_dimension(count):
    axes = axes_of(count)
    asked = Counted(cubic)
    found = refine(asked, axes, 0.005)
    np.testing.assert_allclose(found.values[0], cubic(axes[0]), atol=1e-12)
    assert found.values.shape == (1, count)
    assert found.error[0] < 1e-12
    assert found.evaluations == len(asked.points) == found.evaluated.sum()
    assert found.dense == (found.evaluations == count)
    assert found.evaluations < count or count <= 20


@pytest.mark.parametrize("counts", [(7, 20), (20, 7), (33, 51), (51, 51), (101, 40)])
def test_bicubic_is_exact_on_uneven_grids(counts):
    def function(x, y):
        return cubic(x) * (y**3 + 2 * y - 4) + 7 * y

    axes = axes_of(*counts)
    asked = Counted(function)
    found = refine(asked, axes, 0.005)
    np.testing.assert_allclose(found.values[0], dense(function, axes), atol=1e-11)
    assert found.values.shape == (1, *counts)
    assert found.error[0] < 1e-12
    assert len(set(asked.points)) == len(asked.points) == found.evaluations


def test_uneven_coordinates():
    axes = [np.sort(np.random.default_rng(0).uniform(-1, 1, 51)), np.linspace(0, 10, 33) ** 2]

    def function(x, y):
        return x**3 * y**2 - y

    found = refine(Counted(function), axes, 0.005)
    assert not found.dense
    np.testing.assert_allclose(found.values[0], dense(function, axes), atol=1e-8)


@pytest.mark.parametrize("function", [smooth, ridge])
@pytest.mark.parametrize("counts", [(51, 51), (51, 33)])
def test_true_error_is_within_tolerance_and_axes_are_not_swapped(function, counts):
    axes = axes_of(*counts)
    found = refine(Counted(function), axes, 0.005)
    assert true_error(found, function, axes) <= found.error[0] <= 0.005
    assert found.evaluations <= 0.5 * found.evaluated.size
    evaluated = dense(function, axes)[found.evaluated]
    np.testing.assert_array_equal(found.values[0][found.evaluated], evaluated)


def test_refinement_goes_where_it_is_needed():
    axes = axes_of(101, 101)
    found = refine(Counted(ridge), axes, 0.002)
    x, y = np.meshgrid(*axes, indexing="ij")
    near = np.abs(x - 0.4 * y - 0.07) < 0.15
    assert found.evaluated[near].mean() > 3 * found.evaluated[~near].mean()
    assert true_error(found, ridge, axes) <= 0.002


def test_one_dimensional_kinks():
    axes = axes_of(201)
    for place in np.random.default_rng(0).uniform(-1, 1, 20):

        def function(x, place=place):
            return np.abs(x - place)

        found = refine(Counted(function), axes, 0.005)
        assert found.evaluations < 90
        assert true_error(found, function, axes) <= found.error[0] <= 0.005


def test_smaller_tolerance_takes_more_points_and_errs_less():
    axes = axes_of(51, 51)
    found = [refine(Counted(ridge), axes, tolerance) for tolerance in (0.05, 0.01, 0.002)]
    evaluations = [one.evaluations for one in found]
    assert evaluations == sorted(set(evaluations))
    errors = [true_error(one, ridge, axes) for one in found]
    assert errors == sorted(errors, reverse=True)


def test_deterministic():
    axes = axes_of(51, 51)
    asked = [Counted(ridge), Counted(ridge)]
    first, second = (refine(one, axes, 0.005) for one in asked)
    assert asked[0].points == asked[1].points
    np.testing.assert_array_equal(first.values, second.values)


def test_one_variable_that_is_hard_refines_all():
    axes = axes_of(51, 51)
    alone = refine(Counted(smooth), axes, 0.005)
    both = refine(Counted(smooth, ridge), axes, 0.005)
    assert both.evaluations > alone.evaluations
    assert true_error(both, ridge, axes, 1) <= 0.005


def test_variable_of_infinite_tolerance_asks_for_nothing_and_is_measured():
    def steps(x, y):
        return np.floor(5 * x - y) / 5

    axes = axes_of(51, 51)
    alone, both = Counted(smooth), Counted(smooth, steps)
    refine(alone, axes, 0.005)
    found = refine(both, axes, [0.005, np.inf])
    assert alone.points == both.points
    assert found.error[0] <= 0.005
    assert found.error[1] > 0.05
    assert true_error(found, steps, axes, 1) <= found.error[1]


@pytest.mark.parametrize("value", [0.0, -2.5])
def test_constant(value):
    found = refine(lambda points: np.full((len(points), 2), value), axes_of(51, 51), 0.005)
    np.testing.assert_allclose(found.values, np.full((2, 51, 51), value), atol=1e-14)
    assert found.error.tolist() == pytest.approx([0, 0], abs=1e-12)
    assert not found.dense


@pytest.mark.parametrize("hole", [np.nan, np.inf, -np.inf])
def test_holes_are_evaluated_and_never_spread(hole):
    def function(x, y):
        return np.where((x - 0.3) ** 2 + (y + 0.2) ** 2 < 0.1, hole, smooth(x, y))

    axes = axes_of(51, 51)
    found = refine(Counted(function), axes, 0.005)
    truth = dense(function, axes)
    holes = ~np.isfinite(truth)
    assert not found.dense
    np.testing.assert_array_equal(~np.isfinite(found.values[0]), holes)
    np.testing.assert_array_equal(found.values[0][holes], truth[holes])
    assert found.evaluated[holes].all()
    finite = ~holes
    error = np.abs(found.values[0][finite] - truth[finite]).max() / np.ptp(truth[finite])
    assert error <= found.error[0] <= 0.005
    # Every point beside a hole was evaluated: nothing is interpolated across its edge.
    beside = np.zeros_like(holes)
    for row, column in np.argwhere(holes):
        beside[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2] = True
    assert found.evaluated[beside].all()


def test_hole_at_a_corner_and_a_variable_without_a_value():
    def corner(x, y):
        return np.where((x > 0.7) & (y < -0.6), np.nan, x * y)

    axes = axes_of(51, 51)
    found = refine(Counted(corner), axes, 0.005)
    np.testing.assert_array_equal(np.isnan(found.values[0]), np.isnan(dense(corner, axes)))
    nothing = refine(Counted(smooth, lambda x, y: np.nan * x * y), axes, 0.005)
    assert nothing.dense
    assert np.isnan(nothing.values[1]).all()
    np.testing.assert_array_equal(nothing.values[0], dense(smooth, axes))


def test_noise_falls_back_to_every_point():
    axes = axes_of(51, 51)
    for seed in range(5):
        table = np.random.default_rng(seed).uniform(size=(51, 51))

        def noise(x, y, table=table):
            return table[np.round((x + 1) * 25).astype(int), np.round((y + 1) * 25).astype(int)]

        found = refine(Counted(noise), axes, 0.005)
        assert found.dense
        assert found.evaluated.all()
        assert found.error[0] == 0
        np.testing.assert_array_equal(found.values[0], table)


def bowl_with_spikes(count, seed):
    """Gaussian spikes of height 1, one step of 51 points wide, on a bowl of range 1."""
    centres = np.random.default_rng(seed).uniform(-1, 1, (count, 2))

    def spiky(x, y):
        squared = [(x - one) ** 2 + (y - other) ** 2 for one, other in centres]
        return (x**2 + y**2) / 2 + sum(np.exp(-part / 2 / 0.04**2) for part in squared)

    return spiky


def test_spikes_between_coarse_points_fall_back():
    axes = axes_of(51, 51)
    for seed in range(10):
        assert refine(Counted(bowl_with_spikes(20, seed)), axes, 0.005).dense


def test_one_spike_seen_is_enough_to_distrust_the_rest():
    axes = axes_of(51, 51)
    found = [refine(Counted(bowl_with_spikes(3, seed)), axes, 0.005) for seed in range(20)]
    assert sum(one.dense for one in found) >= 17


def test_log_scale_is_relative_to_the_range_of_the_logarithm():
    def valley(x, y):
        return 10 ** (2 * (x**2 + y**2) - 3) * (1 + 0.2 * np.sin(4 * x))

    axes = axes_of(51, 51)
    found = refine(Counted(valley), axes, 0.005, scale="log")
    truth = dense(valley, axes)
    error = np.abs(np.log(found.values[0]) - np.log(truth)).max() / np.ptp(np.log(truth))
    assert error <= found.error[0] <= 0.005
    plain = refine(Counted(valley), axes, 0.005)
    assert (
        np.abs(np.log10(np.abs(plain.values[0])) - np.log10(truth)).max()
        > 2 * np.abs(np.log10(found.values[0]) - np.log10(truth)).max()
    )


def test_log_scale_never_interpolates_what_is_not_positive():
    def clipped(x, y):
        return np.maximum(x + 0.5 * y + 0.6, 0.0)

    axes = axes_of(51, 51)
    found = refine(Counted(clipped), axes, 0.005, scale="log", most=1.0)
    zero = dense(clipped, axes) == 0
    assert found.evaluated[zero].all()
    assert (found.values[0][zero] == 0).all()
    assert (found.values[0][~zero] > 0).all()


def test_share_beyond_which_all_points_are_evaluated():
    axes = axes_of(51, 51)
    assert refine(Counted(smooth), axes, 0.005, most=0.05).dense
    assert not refine(Counted(smooth), axes, 0.005, most=1.0).dense


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"axes": [np.arange(5.0)] * 3}, "one or two axes"),
        ({"axes": [np.array([0.0, 0.0, 1.0])]}, "ascending"),
        ({"axes": [np.array([0.0])]}, "two coordinates"),
        ({"tolerance": 0.0}, "positive"),
        ({"tolerance": [0.1, 0.1, 0.1]}, "one for each"),
        ({"tolerance": np.nan}, "positive"),
        ({"scale": "cubic"}, "linear"),
        ({"most": 2.0}, "most"),
        ({"evaluate": lambda points: points.sum(1)}, "one row a point"),
    ],
)
def test_wrong_arguments_are_refused(changed, words):
    most = {name: changed.pop(name) for name in ("most", "scale") if name in changed}
    settings = {"evaluate": Counted(smooth), "axes": axes_of(51, 51), "tolerance": 0.1, **changed}
    with pytest.raises(ValueError, match=words):
        refine(**settings, **most)


@pytest.mark.parametrize(
    ("count", "intervals"), list(product([2, 3, 7, 20, 50, 51, 64], [1, 8, 12]))
)
def test_levels_are_nested_and_hold_the_ends(count, intervals):
    levels = nested_levels(count, intervals)
    assert levels[-1].tolist() == list(range(count))
    for before, after in zip(levels, [*levels[1:], levels[-1]], strict=True):
        assert (before[0], before[-1]) == (0, count - 1)
        assert len(set(before.tolist())) == len(before)
        assert set(before.tolist()) <= set(after.tolist())


def test_predictions_keep_known_values_and_are_hierarchical():
    """A value known at a fine level leaves the prediction a coarse cell away unchanged."""
    axes = axes_of(51, 51)
    surface = Surface(axes, 12, 1)
    where = np.argwhere(surface.first == 0)
    surface.add(where, np.zeros((len(where), 1)))
    point = np.argwhere(surface.first == len(surface.levels) - 1)[:1]
    surface.add(point, np.ones((1, 1)))
    predicted = surface.predicted(3)[0]
    assert predicted[tuple(point[0])] == 1
    assert np.count_nonzero(predicted) == 1
