"""Topology of a slice against brute force over all level sets, closed forms and symmetries."""

import json
import math

import numpy as np
import pytest
import xarray
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from landscape.slices.topology import anisotropy, basin, convexity, persistence, topology

QUICK = settings(max_examples=150, deadline=None, derandomize=True, database=None)
LEVELS = st.sampled_from([0.0, 1.0, 2.0, 3.0, 4.0, -1.5, math.nan, math.inf])
SMALL = hnp.arrays(
    np.float64, hnp.array_shapes(min_dims=1, max_dims=2, max_side=6), elements=LEVELS
)
PLANES = hnp.arrays(
    np.float64,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=6),
    elements=st.sampled_from([0.0, 1.0, 2.0, 5.0, math.nan, math.inf]),
)


def structure(dimensions, connectivity):
    full = connectivity == 8
    return ndimage.generate_binary_structure(dimensions, dimensions if full else 1)


def neighbourhoods(values):
    return (2,) if values.ndim == 1 else (4, 8)


def brute_barcode(values, connectivity):
    """Births and deaths by labelling every sublevel set: the number alive over (s, t] pairs.

    beta(s, t) is the number of components of {<= t} that hold a point <= s; the multiplicity of a
    bar [s, t) follows from it by inclusion and exclusion.
    """
    kind = structure(values.ndim, connectivity)
    levels = sorted({v for v in values.ravel().tolist() if not math.isnan(v)})

    def rank(s, t):
        """Components of {<= levels[t]} that meet {<= levels[s]}; those of t = end never die."""
        if s < 0:
            return 0
        with np.errstate(invalid="ignore"):
            labels = ndimage.label(values <= levels[min(t, len(levels) - 1)], kind)[0]
            return len(set(labels[values <= levels[s]].tolist()) - {0})

    bars = []
    for i, birth in enumerate(levels):
        for j in range(i + 1, len(levels)):
            count = rank(i, j - 1) - rank(i, j) - rank(i - 1, j - 1) + rank(i - 1, j)
            bars += [(birth, levels[j])] * count
        end = len(levels)
        bars += [(birth, math.inf)] * (rank(i, end) - rank(i - 1, end) if birth < math.inf else 0)
    return sorted(bars)


def plateau_minima(values, connectivity):
    """Connected plateaus of finite value without a lower neighbour."""
    kind = structure(values.ndim, connectivity)
    count = 0
    for level in {v for v in values.ravel().tolist() if v < math.inf}:
        labels, number = ndimage.label(values == level, kind)
        for k in range(1, number + 1):
            ring = ndimage.binary_dilation(labels == k, kind)
            count += not (values[ring] < level).any()
    return count


def bars_of(found):
    return sorted(map(tuple, found.barcode.tolist()))


def bars_from_tree(tree):
    """The barcode by the elder rule from the tree alone: at a saddle all but the lowest die."""
    below = {k: [] for k in range(len(tree.kinds))}
    for k, parent in enumerate(tree.parents):
        if parent >= 0:
            below[parent].append(k)
    bars = []

    def lowest(node):
        if tree.kinds[node] == "minimum":
            return tree.values[node]
        elder, *others = sorted(lowest(child) for child in below[node])
        bars.extend((other, tree.values[node]) for other in others)
        return elder

    roots = [k for k, parent in enumerate(tree.parents) if parent < 0]
    bars += [(lowest(root), math.inf) for root in roots]
    return sorted(bars), below


@given(values=SMALL)
@QUICK
def test_the_barcode_is_that_of_all_level_sets(values):
    for connectivity in neighbourhoods(values):
        assert bars_of(persistence(values, connectivity)) == brute_barcode(values, connectivity)


@given(values=SMALL)
@QUICK
def test_every_bar_is_one_minimum_and_the_tree_holds_them_all(values):
    for connectivity in neighbourhoods(values):
        found = persistence(values, connectivity)
        assert len(found.bars) == plateau_minima(values, connectivity) == found.minima()
        bars, below = bars_from_tree(found.tree)
        assert bars == bars_of(found)
        for k, children in below.items():
            assert len(children) == (2 if found.tree.kinds[k] == "saddle" else 0)
            assert all(child < k for child in children)
            assert all(found.tree.values[child] <= found.tree.values[k] for child in children)
        essential = [bar for bar in found.bars if bar.saddle is None]
        with np.errstate(invalid="ignore"):
            labels, _ = ndimage.label(~np.isnan(values), structure(values.ndim, connectivity))
        assert len(essential) == len(set(labels[values < math.inf].tolist()))
        for bar in found.bars:
            assert values[bar.minimum] == bar.birth
            if bar.saddle is not None:
                assert values[bar.saddle] == bar.death
                assert (values[bar.elder], bar.elder) < (bar.birth, bar.minimum)


@given(values=SMALL)
@QUICK
def test_the_bar_dies_where_its_component_meets_the_elder_one(values):
    """Just below the death the two minima are apart; with the saddle they are joined."""
    for connectivity in neighbourhoods(values):
        kind = structure(values.ndim, connectivity)
        for bar in persistence(values, connectivity).bars:
            if bar.saddle is None:
                continue
            below = ndimage.label(values < bar.death, kind)[0]
            joined = ndimage.label(values <= bar.death, kind)[0]
            assert below[bar.minimum] != below[bar.elder] > 0
            assert joined[bar.minimum] == joined[bar.elder] == joined[bar.saddle] > 0
            # The rule: what dies is the younger; its own component holds nothing lower.
            assert values[below == below[bar.minimum]].min() == bar.birth


@given(values=SMALL)
@QUICK
def test_flips_and_transposition_leave_the_barcode(values):
    for connectivity in neighbourhoods(values):
        truth = bars_of(persistence(values, connectivity))
        for other in (values[::-1], values.T, np.flip(values)):
            assert bars_of(persistence(other, connectivity)) == truth


@pytest.mark.parametrize("seed", range(5))
def test_distinct_values(seed):
    rng = np.random.default_rng(seed)
    values = rng.permutation(56).reshape(7, 8).astype(float)
    for connectivity in (4, 8):
        assert bars_of(persistence(values, connectivity)) == brute_barcode(values, connectivity)
        flipped = persistence(values[:, ::-1], connectivity)
        mirrored = [(bar.minimum[0], 7 - bar.minimum[1]) for bar in flipped.bars]
        assert mirrored == [bar.minimum for bar in persistence(values, connectivity).bars]


def test_two_wells():
    # x^4 - 2 x^2 + 0.5 x: minima and the saddle are the roots of 4 x^3 - 4 x + 0.5.
    f = np.polynomial.Polynomial([0, 0.5, -2, 0, 1])
    x = np.linspace(-1.6, 1.6, 6401)
    low, saddle, high = np.sort(f.deriv().roots().real)
    found = persistence(f(x))
    assert found.minima() == len(found.bars) == 2
    lasting, dying = found.bars
    assert (lasting.death, lasting.saddle, dying.elder) == (math.inf, None, lasting.minimum)
    np.testing.assert_allclose(
        [x[lasting.minimum[0]], x[dying.minimum[0]], x[dying.saddle[0]]],
        [low, high, saddle],
        atol=2.6e-4,
    )
    assert lasting.birth == pytest.approx(f(low), abs=1e-6)
    assert dying.persistence == pytest.approx(f(saddle) - f(high), abs=1e-6)
    assert found.minima(f(saddle) - f(high) + 1e-4) == 1
    assert found.minima(f(saddle) - f(high) - 1e-4) == 2


def test_egg_crate():
    # sin^2 x + sin^2 y: wells at multiples of pi, saddles of height 1 between any two of them.
    x = np.linspace(-1.5 * math.pi, 1.5 * math.pi, 61)
    values = np.sin(x[:, None]) ** 2 + np.sin(x) ** 2
    for connectivity in (4, 8):
        found = persistence(values, connectivity)
        assert found.minima(1e-9) == 9
        births, deaths = found.barcode[:9].T
        np.testing.assert_allclose(births, 0, atol=1e-12)
        np.testing.assert_allclose(deaths[1:], 1, atol=1e-12)
        wells = np.array([bar.minimum for bar in found.bars[:9]])
        assert {tuple(np.round(x[w] / math.pi).astype(int)) for w in wells} == {
            (i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)
        }
    # The wells and the domes take the same area, and one well's level set {f <= 1} is a square
    # of diagonal pi: sin^2 x + sin^2 y <= 1 is |x| + |y| <= pi / 2.
    well = basin(values, [x, x], (30, 30), 1 - 1e-9)
    assert well.size == pytest.approx(math.pi**2 / 2, rel=5e-3)
    assert not well.touches_border
    # The Hessian is diagonal with 2 cos 2x and 2 cos 2y, and so is that of differences.
    convex = np.cos(2 * x[1:-1]) > -1e-9
    assert convexity(values, [x, x]).share == pytest.approx(convex.mean() ** 2, abs=1e-12)


def test_an_oblique_valley_is_one_minimum_with_eight_neighbours():
    x = np.linspace(-1, 1, 21)
    u, v = x[:, None] + x, x[:, None] - x
    values = 100 * v**2 + 0.1 * u**2
    assert persistence(values).minima() == 1
    assert persistence(values, 4).minima() == 21


def test_plateaus_ties_and_signed_zeros():
    assert bars_of(persistence(np.zeros((3, 4)))) == [(0.0, math.inf)]
    tied = persistence([1.0, 0.0, 1.0, 0.0, 1.0])
    # The earlier of two equal minima is the elder.
    assert [bar.minimum for bar in tied.bars] == [(1,), (3,)]
    assert (tied.bars[1].saddle, tied.bars[1].elder) == ((2,), (1,))
    assert persistence([0.0, -0.0, 1.0, 0.0]).barcode.tolist() == [[0, math.inf], [0, 1]]
    assert bars_of(persistence([2.0, 1.0, 1.0, 0.0])) == [(0.0, math.inf)]


def test_what_is_not_finite():
    parted = persistence([1.0, math.nan, 0.0, math.inf, 0.5])
    assert bars_of(parted) == [(0.0, math.inf), (0.5, math.inf), (1.0, math.inf)]
    # Behind +inf it is joined, at +inf; behind NaN it is not.
    assert [bar.saddle for bar in parted.bars] == [None, None, (3,)]
    assert "1 of 5 points are NaN" in parted.message
    assert "2 parts" in parted.message
    assert persistence([0.0, 1.0]).message == ""
    empty = persistence([math.nan, math.inf])
    assert empty.bars == ()
    assert empty.barcode.shape == (0, 2)
    assert "No point" in empty.message
    low = persistence([-math.inf, 1.0, 0.0])
    assert bars_of(low) == [(-math.inf, math.inf), (0.0, 1.0)]
    assert low.minima(0.5, rounding=1e-6) == 2


def test_minima_within_rounding_do_not_count():
    found = persistence([3.0, 1.0, 1.0 + 1e-8, 1.0, 2.0])
    assert found.minima() == 2
    assert found.minima(rounding=1e-6) == 1


def test_wrong_grids_are_refused():
    with pytest.raises(ValueError, match="connectivity"):
        persistence([0.0, 1.0], 4)
    with pytest.raises(ValueError, match="connectivity"):
        persistence(np.zeros((2, 2)), 6)
    with pytest.raises(ValueError, match="not empty"):
        persistence(np.zeros((2, 2, 2)))
    with pytest.raises(ValueError, match="not empty"):
        persistence([])
    with pytest.raises(ValueError, match="one array for each axis"):
        basin(np.zeros((2, 3)), [[0, 1, 2], [0, 1]], (0, 0), 1.0)
    with pytest.raises(ValueError, match="ascending"):
        convexity([0.0, 0.0, 0.0], [[0, 2, 1]])
    with pytest.raises(ValueError, match="no index"):
        anisotropy([0.0, 0.0, 0.0], [[0, 1, 2]], 3)
    with pytest.raises(ValueError, match="finite number"):
        basin([0.0, 1.0], [[0, 1]], 0, math.nan)
    with pytest.raises(ValueError, match="reach"):
        anisotropy([0.0, 0.0, 0.0], [[0, 1, 2]], 1, reach=0)


def fine_grid_basin(values, axes, start, threshold, parts=40):
    """Area by counting fine points of the same interpolant, labelled with 4 neighbours."""
    shape = [(n - 1) * parts for n in values.shape]
    i, j = np.meshgrid(*[(np.arange(n) + 0.5) / parts for n in shape], indexing="ij")
    k, m = i.astype(int), j.astype(int)
    u, v = 2 * (i - k) - 1, 2 * (j - m) - 1
    a, b, c, d = values[k, m], values[k + 1, m], values[k + 1, m + 1], values[k, m + 1]
    centre = (a + b + c + d) / 4
    # On the triangle of a side the value is centre + r (side - centre), r the larger of |u|, |v|.
    r = np.maximum(np.abs(u), np.abs(v))
    t = (np.where(np.abs(u) > np.abs(v), v, u) / r + 1) / 2
    side = np.where(
        np.abs(u) > np.abs(v),
        np.where(u > 0, b + t * (c - b), a + t * (d - a)),
        np.where(v > 0, d + t * (c - d), a + t * (b - a)),
    )
    inside = centre + r * (side - centre) <= threshold
    labels = ndimage.label(inside)[0]
    near = (np.abs(i - start[0]) < 1 / parts) & (np.abs(j - start[1]) < 1 / parts)
    mine = np.isin(labels, [label for label in set(labels[near].tolist()) if label])
    cell = np.outer(np.diff(axes[0]), np.diff(axes[1])) / parts**2
    return float((mine * cell[k, m]).sum())


@pytest.mark.parametrize("seed", range(8))
def test_area_against_counting_on_a_fine_grid(seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(6, 7))
    axes = [np.cumsum(rng.uniform(0.5, 1.5, n)) for n in values.shape]
    start = np.unravel_index(values.argmin(), values.shape)
    for threshold in (-0.7, -0.2, 0.3):
        found = basin(values, axes, start, threshold)
        counted = fine_grid_basin(values, axes, start, threshold)
        assert found.size == pytest.approx(counted, abs=0.02 + 0.01 * counted)


def test_basin_of_an_ellipse_converges_with_the_square_of_the_spacing():
    errors = []
    for n in (41, 81, 161):
        x, y = np.linspace(-2, 2, n), np.linspace(-1.1, 1.1, n)
        values = x[:, None] ** 2 + 4 * y**2
        found = basin(values, [x, y], (n // 2, n // 2), 2.0)
        errors.append(abs(found.size / math.pi - 1))
        (left, right), (bottom, top) = found.extent
        np.testing.assert_allclose([left, right], [-math.sqrt(2), math.sqrt(2)], atol=4 / n)
        np.testing.assert_allclose([bottom, top], [-math.sqrt(0.5), math.sqrt(0.5)], atol=4 / n)
        assert (found.touches_border, found.touches_missing, found.message) == (False, False, "")
    assert errors[0] > 3 * errors[1] > 9 * errors[2] > 0
    assert errors[2] < 1e-3


def test_basin_of_a_plane_is_exact_and_cut_off():
    x, y = np.array([0.0, 0.3, 1.0, 2.0]), np.array([0.0, 1.0, 1.5])
    values = x[:, None] + 0 * y
    found = basin(values, [x, y], (0, 1), 1.25)
    assert found.size == pytest.approx(1.25 * 1.5, rel=1e-12)
    np.testing.assert_allclose(found.extent, [(0, 1.25), (0, 1.5)], rtol=1e-12)
    assert found.touches_border
    assert "lower bound" in found.message
    oblique = basin(x[:, None] + y, [x, y], (0, 0), 1.0)
    assert oblique.size == pytest.approx(0.5, rel=1e-12)


def test_width_by_linear_interpolation():
    x = [0.0, 1.0, 3.0, 4.0, 5.0, 6.0]
    values = [5.0, 1.0, 0.0, 2.0, 8.0, 0.0]
    found = basin(values, [x], 2, 4.0)
    assert found.extent == ((0.25, pytest.approx(4 + 1 / 3)),)
    assert found.size == pytest.approx(4 + 1 / 3 - 0.25)
    # The well behind the ridge is another component.
    assert not found.touches_border
    assert basin(values, [x], 5, 4.0).extent == ((5.5, 6.0),)


def test_a_second_well_is_another_component():
    x = np.linspace(-2, 2, 81)
    values = (x[:, None] ** 2 - 1) ** 2 + x**2
    one = basin(values, [x, x], (20, 40), 0.5)
    other = basin(values, [x, x], (60, 40), 0.5)
    both = basin(values, [x, x], (20, 40), 1.5)
    assert one.size == pytest.approx(other.size, rel=1e-12)
    assert one.extent[0][1] < 0 < other.extent[0][0]
    assert both.size > 2 * one.size
    assert both.extent[0] == pytest.approx((-1.49, 1.49), abs=0.01)


def test_basin_beside_what_is_not_finite():
    walled = basin([math.inf, 1.0, 0.0, 1.0, math.nan], [[0, 1, 2, 3, 4]], 2, 2.0)
    assert walled.extent == ((1.0, 3.0),)
    assert walled.size == pytest.approx(2.0)
    assert (walled.touches_border, walled.touches_missing) == (False, True)
    assert "NaN" in walled.message
    plane = np.zeros((3, 3))
    plane[0, 0] = math.nan
    holed = basin(plane, [[0, 1, 2], [0, 1, 2]], (1, 1), 1.0)
    assert holed.size == pytest.approx(3.0)
    assert holed.touches_missing
    above = basin([3.0, 2.0, 3.0], [[0, 1, 2]], 1, 1.0)
    assert (above.size, above.extent) == (0.0, ((1.0, 1.0),))
    assert "above the threshold" in above.message
    lost = basin([3.0, math.nan, 3.0], [[0, 1, 2]], 1, 1.0)
    assert math.isnan(lost.size)
    assert "no value" in lost.message
    deep = basin([1.0, -math.inf, 1.0], [[0, 1, 2]], 1, 0.0)
    assert deep.size == pytest.approx(2.0)


@given(values=PLANES, threshold=st.sampled_from([0.0, 0.5, 1.5, 4.0]), data=st.data())
@QUICK
def test_symmetries_and_monotony_of_the_basin(values, threshold, data):
    n, m = values.shape
    axes = [np.arange(n) ** 1.5, np.arange(m) * 0.5]
    i, j = data.draw(st.integers(0, n - 1)), data.draw(st.integers(0, m - 1))
    found = basin(values, axes, (i, j), threshold)
    turned = basin(values.T, axes[::-1], (j, i), threshold)
    flipped = basin(values[::-1], [-axes[0][::-1], axes[1]], (n - 1 - i, j), threshold)
    assert turned.size == pytest.approx(found.size, rel=1e-12, nan_ok=True)
    assert flipped.size == pytest.approx(found.size, rel=1e-12, nan_ok=True)
    if math.isnan(found.size):
        return
    np.testing.assert_allclose(turned.extent, found.extent[::-1], rtol=1e-12)
    np.testing.assert_allclose(flipped.extent[0], -np.array(found.extent[0][::-1]), rtol=1e-12)
    larger = basin(values, axes, (i, j), threshold + 0.7)
    assert larger.size >= found.size - 1e-12
    box = math.prod(high - low for low, high in found.extent)
    assert 0 <= found.size <= box + 1e-12
    same = (found.touches_border, found.touches_missing)
    assert same == (turned.touches_border, turned.touches_missing)


def bowl(large, small, degrees, x, y):
    turn = math.radians(degrees)
    u = math.cos(turn) * x[:, None] + math.sin(turn) * y
    v = -math.sin(turn) * x[:, None] + math.cos(turn) * y
    return large * u**2 / 2 + small * v**2 / 2 + 0.3 * u - 0.2 * v + 7


@pytest.mark.parametrize("degrees", [-90, -60, -17, 0, 30, 45, 89])
@pytest.mark.parametrize(("large", "small"), [(100.0, 1.0), (3.0, 2.9), (-5.0, 1.0), (4.0, 0.01)])
@pytest.mark.parametrize("start", [(10, 8), (0, 0), (20, 3)])
def test_anisotropy_of_a_bowl(degrees, large, small, start):
    x, y = np.linspace(-1, 1, 21), np.linspace(-0.3, 0.5, 17)
    found = anisotropy(bowl(large, small, degrees, x, y), [x, y], start)
    np.testing.assert_allclose(found.curvatures, [large, small], rtol=1e-6)
    assert found.ratio == pytest.approx(large / small, rel=1e-6)
    assert -90 <= found.angle < 90
    assert abs((found.angle - degrees + 90) % 180 - 90) < 1e-4
    assert found.residual < 1e-9
    assert found.message == ""


def test_anisotropy_turns_with_the_plane():
    x, y = np.linspace(-1, 1, 21), np.linspace(-0.5, 0.7, 17)
    values = bowl(9.0, 2.0, 25.0, x, y)
    swapped = anisotropy(values.T, [y, x], (8, 10))
    flipped = anisotropy(values[::-1], [-x[::-1], y], (10, 8))
    assert swapped.angle == pytest.approx(65, abs=1e-6)
    assert flipped.angle == pytest.approx(-25, abs=1e-6)
    # Twice the distance between points, a quarter of the curvature.
    wider = anisotropy(values, [2 * x, 2 * y], (10, 8))
    np.testing.assert_allclose(wider.curvatures, [9 / 4, 2 / 4], rtol=1e-9)


def test_anisotropy_of_special_slices():
    x = np.linspace(-1, 1, 11)
    line = anisotropy(3 * x**2, [x], 5)
    assert line.curvatures == (pytest.approx(6),)
    assert math.isnan(line.ratio)
    assert math.isnan(line.angle)
    round_ = anisotropy(x[:, None] ** 2 + x**2, [x, x], (5, 5))
    assert round_.ratio == pytest.approx(1)
    assert math.isnan(round_.angle)
    assert "equal" in round_.message
    saddle = anisotropy(x[:, None] * x, [x, x], (5, 5))
    np.testing.assert_allclose(saddle.curvatures, [1, -1], rtol=1e-9)
    assert saddle.angle == pytest.approx(45)
    flat = anisotropy(np.full((5, 5), 2.0), [x[:5], x[:5]], (2, 2))
    assert flat.curvatures == (0.0, 0.0)
    assert math.isnan(flat.ratio)
    # No parabola at all: |x| leaves a residual that says so.
    assert anisotropy(np.abs(x), [x], 5).residual > 0.05


def test_anisotropy_where_points_are_missing():
    x = np.linspace(-1, 1, 21)
    values = bowl(9.0, 2.0, 25.0, x, x)
    values[9, 9], values[11, 12], values[10, 8] = math.nan, math.inf, math.nan
    np.testing.assert_allclose(anisotropy(values, [x, x], (10, 10)).curvatures, [9, 2], rtol=1e-6)
    lost = anisotropy(np.full((5, 5), math.nan), [x[:5], x[:5]], (2, 2))
    assert all(map(math.isnan, lost.curvatures))
    assert "too few" in lost.message
    assert "too few" in anisotropy([1.0, 2.0], [[0, 1]], 0).message
    # Six points on one line are enough in number only.
    row = np.full((5, 9), math.nan)
    row[2] = np.arange(9.0)
    assert "too few" in anisotropy(row, [x[:5], x[:9]], (2, 4), reach=4).message


def test_convexity_of_closed_forms():
    x, y = np.linspace(-1, 1, 15) ** 3, np.linspace(-1, 1, 12)
    assert convexity(bowl(100.0, 1.0, 30.0, x, y), [x, y], rounding=1e-12).share == 1
    assert convexity(bowl(100.0, -0.1, 30.0, x, y), [x, y], rounding=1e-12).share == 0
    # Both axes are convex, the diagonal is not.
    assert convexity(bowl(1.0, -0.1, 45.0, y, y), [y, y], rounding=1e-12).share == 0
    # A plane is convex, and so is any function of one direction that is.
    plane = 1e3 + 3 * x[:, None] - 2 * y
    assert convexity(plane, [x, y], rounding=1e-12).share == 1
    assert convexity((x[:, None] + 0 * y) ** 4, [x, y], rounding=1e-12).share == 1
    # x^3 is convex where x >= 0, on the even grid at 0 as well.
    t = np.linspace(-1, 1, 21)
    assert convexity(t**3, [t]).share == 10 / 19
    assert convexity(t**3, [t]).points == 19


@given(
    hnp.arrays(np.float64, (5, 6), elements=st.integers(-4, 4).map(float)),
    st.sampled_from([0.0, 1e-6]),
)
@QUICK
def test_convexity_against_eigenvalues(values, rounding):
    axes = [np.arange(5.0), np.arange(6.0)]
    convex = []
    for i in range(1, 4):
        for j in range(1, 5):
            a = values[i + 1, j] - 2 * values[i, j] + values[i - 1, j]
            c = values[i, j + 1] - 2 * values[i, j] + values[i, j - 1]
            near = values[i - 1 : i + 2 : 2, j - 1 : j + 2 : 2]
            b = (near[1, 1] - near[0, 1] - near[1, 0] + near[0, 0]) / 4
            # Positive semidefinite by Sylvester's criterion, exact in these numbers.
            convex.append(a >= 0 and c >= 0 and a * c >= b * b)
    if rounding:  # without a tolerance a singular Hessian may fall on either side
        assert convexity(values, axes, rounding=rounding).share == np.mean(convex)
    else:
        assert convexity(values, axes, rounding=0.0).share <= np.mean(convex)
    turned = convexity(values.T, axes[::-1]), convexity(values[:, ::-1], axes)
    assert {entry.share for entry in turned} == {convexity(values, axes).share}
    # Units of the axes do not matter.
    stretched = convexity(values, [1e3 * axes[0], 1e-3 * axes[1]])
    assert stretched.share == convexity(values, axes).share


def test_convexity_leaves_out_what_is_not_finite():
    x = np.arange(7.0)
    values = x[:, None] ** 2 + x**2
    values[3, 3] = math.nan
    found = convexity(values, [x, x])
    assert (found.share, found.points, found.left_out) == (1.0, 16, 9)
    values[:] = math.inf
    found = convexity(values, [x, x])
    assert math.isnan(found.share)
    assert (found.points, found.left_out) == (0, 25)
    assert math.isnan(convexity([1.0, 2.0], [[0, 1]]).share)


def test_convexity_tolerates_the_rounding_of_single_precision():
    x = np.linspace(-1, 1, 51)
    values = (3 + 0.3 * x[:, None] + 0.1 * x).astype(np.float32).astype(np.float64)
    assert convexity(values, [x, x], rounding=1e-12).share < 0.5
    assert convexity(values, [x, x]).share == 1


def dataset(values, alpha, beta, **more):
    return xarray.Dataset(
        {"train_loss": (("alpha", "beta"), values), **more}, {"alpha": alpha, "beta": beta}
    )


def test_topology_of_a_slice():
    alpha, beta = np.linspace(-1, 1, 41), np.linspace(-0.5, 0.7, 25)
    ds = dataset(bowl(10.0, 1.0, 20.0, alpha, beta) - 7, alpha, beta)
    found = topology(ds)
    assert (found.axes, found.start) == (("alpha", "beta"), (20, 10))
    assert found.value == pytest.approx(0, abs=1e-12)
    assert (found.minima, found.threshold, found.convexity.share) == (1, 0.0, 1.0)
    assert found.anisotropy.angle == pytest.approx(20, abs=1e-6)
    assert found.basin.threshold == pytest.approx(0.1)
    assert found.message == ""
    record = found.to_dict()
    again = json.loads(json.dumps(record, allow_nan=False))
    assert again == record
    assert again["persistence"]["bars"][0]["death"] is None
    # The order of the dimensions in the file does not matter.
    assert topology(ds.transpose("beta", "alpha")).to_dict() == record


def test_topology_of_a_line_off_the_checkpoint():
    alpha = np.array([-1.0, -0.3, 0.2, 1.0])
    ds = xarray.Dataset({"loss": ("alpha", [3.0, 1.0, 0.5, math.nan])}, {"alpha": alpha})
    found = topology(ds, "loss", rise=1.0)
    assert (found.start, found.position) == ((2,), (0.2,))
    assert "no grid point" in found.message
    assert "NaN" in found.message
    assert found.basin.touches_missing
    json.dumps(found.to_dict(), allow_nan=False)


def test_topology_without_a_value_at_the_checkpoint():
    alpha = np.linspace(-1, 1, 5)
    ds = xarray.Dataset({"train_loss": ("alpha", np.full(5, math.nan))}, {"alpha": alpha})
    found = topology(ds)
    assert (found.minima, found.convexity.points) == (0, 0)
    assert math.isnan(found.basin.size)
    json.dumps(found.to_dict(), allow_nan=False)


def test_minima_that_interpolation_can_make_do_not_count():
    """The stability theorem: errors up to e make no bar longer than 2 e."""
    rng = np.random.default_rng(0)
    alpha, beta = np.linspace(-1, 1, 31), np.linspace(-1, 1, 31)
    smooth = (alpha[:, None] ** 2 - 0.25) ** 2 + 0.05 * beta**2
    share = 0.005
    error = share * np.ptp(smooth) * 0.99
    rough = smooth + rng.uniform(-error, error, smooth.shape)
    evaluated = np.zeros(smooth.shape, dtype=bool)
    evaluated[::2, ::2] = True
    ds = dataset(rough, alpha, beta, evaluated=(("alpha", "beta"), evaluated))
    ds.attrs["error_estimate"] = json.dumps({"train_loss": share})
    found = topology(ds)
    assert len(found.persistence.bars) > 5
    assert found.threshold == pytest.approx(2 * share * np.ptp(rough))
    assert found.minima == 2
    assert "705 of 961 points are interpolated" in found.message
    assert topology(ds, threshold=0.0).minima > 5
    ds.attrs["error_estimate"] = "{}"
    assert topology(ds).threshold == 0
    assert "gives no error" in topology(ds).message


def test_datasets_that_are_no_slice_are_refused():
    ds = xarray.Dataset({"train_loss": ("checkpoint", [1.0, 2.0])})
    with pytest.raises(ValueError, match="over alpha"):
        topology(ds)
    with pytest.raises(ValueError, match="no variable 'test_loss'"):
        topology(ds, "test_loss")
