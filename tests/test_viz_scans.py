"""Pictures of radius scans, by what they draw: lines, bands, gaps, crosses, labels, limits."""

import math
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.text import Text

from landscape.results import Cost, Estimate, Result
from landscape.viz import plot_noise_scan, plot_radius_scan
from landscape.viz.direct_labels import spread
from landscape.viz.display import svg
from landscape.viz.scan_panels import missing_points, panel_height, scan_panels
from landscape.viz.scans import scan_of

RADII = (0.001, 0.005, 0.01, 0.05, 0.1)
GAP = {"value": None, "stderr": None, "interval": [None, None], "status": "undefined"}


def point(at, value, half=None, **changes):
    half = 0.1 * abs(value) if half is None else half
    ends = [value - half, value + half]
    return {"at": at, "value": value, "stderr": half / 2, "interval": ends, "status": "ok"} | (
        changes
    )


def square(radii=RADII, factor=2.0, **changes):
    return [point(at, factor * at * at, **changes) for at in radii]


def scanned(measure, points, parameter="rho", config=None, **diagnostics):
    diagnostics["scan"] = {"parameter": parameter, "points": points}
    estimate = Estimate(value=1.0, stderr=0.1, interval=(0.8, 1.2), diagnostics=diagnostics)
    return Result(measure=measure, estimate=estimate, cost=Cost(), config=config or {})


def with_gap(points, place, message=""):
    return [
        {"at": entry["at"], "message": message} | GAP if index == place else entry
        for index, entry in enumerate(points)
    ]


def texts(ax):
    return [text.get_text() for text in ax.texts]


def line(ax, label):
    return next(entry for entry in ax.lines if entry.get_label() == label)


def crosses(ax):
    found = [entry for entry in ax.lines if entry.get_marker() == "x"]
    return [tuple(place) for entry in found for place in entry.get_xydata()]


def squares(ax):
    return [entry for entry in ax.lines if entry.is_dashed()]


def test_line_band_and_name():
    ax = plot_radius_scan(scanned("max-sharpness", square())).ax_
    drawn = line(ax, "max-sharpness")
    np.testing.assert_allclose(drawn.get_xdata(), RADII)
    np.testing.assert_allclose(drawn.get_ydata(), [2 * at * at for at in RADII])
    (band,) = (entry for entry in ax.collections if isinstance(entry, PolyCollection))
    corners = band.get_paths()[0].vertices
    assert corners[:, 1].min() == pytest.approx(1.8e-6)
    assert corners[:, 1].max() == pytest.approx(0.022)
    assert "max-sharpness" in texts(ax)


def test_axes_say_what_they_show():
    ax = plot_radius_scan(scanned("max-sharpness", square())).ax_
    assert ax.get_xlabel() == "radius ρ"
    assert ax.get_ylabel() == "rise of the loss"
    assert ax.get_title(loc="left") == "Euclidean, 2-norm ball"
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert [label.get_text() for label in ax.get_xticklabels()] == [f"{at:g}" for at in RADII]
    low, high = ax.get_ylim()
    assert low < 1.8e-6
    assert high > 0.022


@pytest.mark.parametrize(
    ("parameter", "config", "title"),
    [
        ("rho", {"geometry": "elementwise", "norm": "linf"}, "Relative to each weight, ∞-norm"),
        ("rho", {"geometry": "filterwise", "norm": "l2"}, "norm of each filter, 2-norm ball"),
        ("rho", {"geometry": "oblique"}, "Oblique, 2-norm ball"),
        ("sigma", {"geometry": "euclidean"}, "Gaussian noise, every weight alike"),
        ("sigma", {"geometry": "elementwise"}, "Gaussian noise relative to each weight"),
        ("sigma", {"norm": "linf"}, "Uniform noise"),
    ],
)
def test_title_says_the_geometry_in_words(parameter, config, title):
    ax = plot_radius_scan(scanned("a", square(), parameter, config)).ax_
    assert title in ax.get_title(loc="left")
    assert ax.get_xlabel() == {"rho": "radius ρ", "sigma": "noise scale σ"}[parameter]


def test_adaptive_measures_are_elementwise_where_nothing_is_told():
    ax = plot_radius_scan(scanned("adaptive-sharpness", square())).ax_
    assert ax.get_title(loc="left").startswith("Relative to each weight")


def test_reference_line_has_slope_two_and_lies_below_all():
    results = [scanned("a", square()), scanned("b", [point(at, 3 * at) for at in RADII])]
    ax = plot_radius_scan(results).ax_
    (reference,) = squares(ax)
    x, y = reference.get_data()
    assert np.diff(np.log(y)) / np.diff(np.log(x)) == pytest.approx(2)
    assert y[0] / x[0] ** 2 < 2
    assert "∝ ρ²" in texts(ax)


def test_a_single_radius_has_no_slope():
    ax = plot_radius_scan(scanned("a", square([0.05]))).ax_
    assert not squares(ax)
    assert "∝ ρ²" not in texts(ax)


def test_negative_values_need_another_scale():
    close = [point(at, -0.1 - at) for at in RADII]
    assert plot_radius_scan(scanned("a", close)).ax_.get_yscale() == "linear"
    wide = [point(at, -10 * at) for at in RADII]
    ax = plot_radius_scan([scanned("a", square()), scanned("b", wide)]).ax_
    assert ax.get_yscale() == "symlog"
    assert not squares(ax)
    low, high = ax.get_ylim()
    assert low < -1
    assert high > 0.02


def test_zeros_are_drawn():
    ax = plot_radius_scan(scanned("a", [point(at, 0.0) for at in RADII])).ax_
    assert ax.get_yscale() == "linear"
    assert len(line(ax, "a").get_ydata()) == len(RADII)


def test_a_band_that_holds_zero_meets_the_edge_of_a_logarithmic_axis():
    ax = plot_radius_scan(scanned("a", [point(at, at, half=2 * at) for at in RADII])).ax_
    assert ax.get_yscale() == "log"
    assert 0 < ax.get_ylim()[0] < 0.001
    assert svg(ax.get_figure())


def test_gap_where_there_is_no_value():
    found = scanned("a", with_gap(square(), 2))
    ax = plot_radius_scan(found).ax_
    assert np.isnan(line(ax, "a").get_ydata()).tolist() == [False, False, True, False, False]
    assert crosses(ax) == [(0.01, 0.0)]
    assert "× no value" in ax.get_xlabel()


def test_crosses_of_one_radius_stand_above_each_other():
    names = ("a", "b")
    ax = plot_radius_scan([scanned(name, with_gap(square(), 2)) for name in names]).ax_
    (first, second) = crosses(ax)
    assert first[0] == second[0]
    assert first[1] < second[1] < 0.1


def test_a_value_between_gaps_keeps_its_interval():
    points = with_gap(with_gap(square(), 1), 3)
    ax = plot_radius_scan(scanned("a", points)).ax_
    upright = [
        segment
        for entry in ax.collections
        if not isinstance(entry, PolyCollection)
        for segment in entry.get_segments()
    ]
    assert [segment[0, 0] for segment in upright] == list(RADII[::2])
    np.testing.assert_allclose(upright[1][:, 1], [1.8e-4, 2.2e-4])


def test_no_value_at_any_radius():
    ax = plot_radius_scan(scanned("a", [{"at": at} | GAP for at in RADII])).ax_
    assert len(crosses(ax)) == len(RADII)
    assert "a: no value" in texts(ax)
    assert svg(ax.get_figure())


@pytest.mark.parametrize("value", [math.nan, math.inf, None])
def test_values_that_no_axis_holds_are_gaps(value):
    points = [*square(RADII[:2]), {"at": 0.5, "value": value}]
    ax = plot_radius_scan(scanned("a", points)).ax_
    assert [at for at, _ in crosses(ax)] == [0.5]


def test_uncertain_values_are_hollow():
    points = square()
    points[1]["status"] = "uncertain"
    ax = plot_radius_scan(scanned("a", points)).ax_
    hollow = [entry for entry in ax.lines if entry.get_markerfacecolor() == "white"]
    assert [entry.get_xdata().tolist() for entry in hollow] == [[0.005]]
    assert "hollow" in ax.get_xlabel()


def test_points_are_sorted_and_stderr_stands_in_for_the_interval():
    points = [{"at": 0.1, "value": 2.0, "stderr": 0.5}, {"at": 0.01, "value": 1.0}]
    scan = scan_of(scanned("a", points))
    assert scan.at.tolist() == [0.01, 0.1]
    assert (scan.low[1], scan.high[1]) == pytest.approx((1.02, 2.98))
    assert np.isnan(scan.low[0])


def test_name_leaves_out_what_the_panel_tells():
    config = {"geometry": "elementwise", "norm": "linf"}
    label = "adaptive-sharpness[norm=linf,logit_normalisation=True,rho=0.001]"
    ax = plot_radius_scan(scanned(label, square(), config=config)).ax_
    assert "adaptive-sharpness\nlogit_normalisation=True" in texts(ax)


def test_one_scan_reported_at_two_radii_is_one_line():
    names = ("a[rho=0.01]", "a[rho=0.05]")
    ax = plot_radius_scan([scanned(name, square()) for name in names]).ax_
    assert line(ax, "a")
    ax = plot_radius_scan([scanned(name, square(factor=k)) for k, name in enumerate(names, 1)]).ax_
    assert {entry.get_label() for entry in ax.lines} >= set(names)


def test_many_lines_all_differ_and_their_names_do_not_overlap():
    results = [scanned(f"measure-{k}", square(factor=1 + k / 100)) for k in range(12)]
    ax = plot_radius_scan(results).ax_
    marked = [entry for entry in ax.lines if entry.get_marker() in set("os^DvP")]
    assert len({(entry.get_color(), entry.get_marker()) for entry in marked}) == 12
    ax.get_figure().draw_without_rendering()
    names = [text for text in ax.texts if text.get_text().startswith("measure")]
    # Without the lines that join them to the curves.
    boxes = sorted(Text.get_window_extent(name).intervaly.tolist() for name in names)
    assert len(boxes) == 12
    assert all(high <= low for (_, high), (low, _) in pairwise(boxes))
    assert panel_height(2 * results[:1]) == panel_height(results[:1])
    more = [scanned(f"measure-{k}", square()) for k in range(20)]
    assert panel_height(more) > panel_height(results[:1])


def test_names_are_no_formulas():
    assert svg(plot_radius_scan(scanned("a$_{", square())).figure_)


def test_crowded_radii_keep_room_between_ticks():
    radii = [0.01 * 1.02**k for k in range(60)]
    ax = plot_radius_scan(scanned("a", square(radii))).ax_
    assert 2 <= len(ax.get_xticks()) < 12
    assert len(line(ax, "a").get_xdata()) == 60


def test_less_than_a_decade_has_numbers():
    ax = plot_radius_scan(scanned("a", square([0.05, 0.06, 0.07]))).ax_
    low, high = ax.get_ylim()
    assert sum(low <= tick <= high for tick in ax.get_yticks()) >= 2


def test_spread_keeps_order_and_room():
    assert spread([0.5], [0.1]) == [0.5]
    places = spread([0.9, 0.91, 0.2, 0.92], [0.1] * 4)
    assert places == pytest.approx([0.75, 0.85, 0.2, 0.95])
    assert spread([0.0], [0.1]) == [0.05]


def test_panels_hold_what_can_be_compared():
    linf = {"geometry": "elementwise", "norm": "linf"}
    plain = Result(measure="train-loss", estimate=Estimate.exact(1.0), cost=Cost())
    results = [
        scanned("s", square(), "sigma", {"geometry": "euclidean"}),
        scanned("a", square(), config={"geometry": "euclidean", "norm": "l2"}),
        scanned("b", square(), config=linf),
        plain,
        scanned("noise-stability", square(), "sigma"),
        scanned("c", square()),
        scanned("d", []),
    ]
    panels = {
        tuple(key): [result.measure for result in found]
        for key, found in scan_panels(results).items()
    }
    assert panels == {
        ("rho", "ball", "rise", "euclidean", "l2"): ["a", "c"],
        ("rho", "ball", "rise", "elementwise", "linf"): ["b"],
        ("sigma", "noise", "rise", "euclidean", "l2"): ["s"],
    }
    assert list(panels)[-1][0] == "sigma"
    with pytest.raises(ValueError, match="cannot share an axis"):
        plot_radius_scan(results)


def test_missing_points_are_told_once_with_their_reason():
    results = [
        scanned(name, with_gap(square(), 4, "it overflows")) for name in ("a[rho=1]", "a[rho=2]")
    ]
    assert missing_points(results) == ["a at ρ = 0.1: it overflows"]
    assert missing_points([scanned("a", with_gap(square(), 0))]) == ["a at ρ = 0.001: undefined"]


@pytest.mark.parametrize("points", [None, []])
def test_radius_scan_needs_a_scan(points):
    found = scanned("a", points)
    with pytest.raises(ValueError, match="no result has a scan"):
        plot_radius_scan([found])
    with pytest.raises(ValueError, match="no result has a scan"):
        plot_radius_scan([])
    with pytest.raises(ValueError, match="plot_noise_scan"):
        plot_radius_scan(scanned("noise-stability", square(), "sigma"))


@pytest.mark.parametrize(
    ("plot", "found"),
    [
        (plot_radius_scan, scanned("a", square())),
        (plot_noise_scan, scanned("noise-stability", square(), "sigma")),
    ],
    ids=["radius", "noise"],
)
class TestEveryPlot:
    def test_draws_on_given_axes(self, plot, found):
        ax = Figure().add_subplot()
        display = plot(found, ax=ax)
        assert display.ax_ is ax
        assert display.figure_ is ax.get_figure()

    def test_draws_in_a_subfigure(self, plot, found):
        part = Figure().subfigures(1, 2)[0]
        assert plot(found, ax=part.add_subplot()).figure_ is part

    def test_same_picture_same_bytes(self, plot, found):
        from landscape.viz import style

        with style():
            assert svg(plot(found).figure_) == svg(plot(found).figure_)


@pytest.mark.parametrize(
    ("told", "title", "radius", "value"),
    [
        ({}, "Euclidean, 2-norm ball", "radius ρ", "rise of the loss"),
        ({"kind": "step"}, "One step. Euclidean, 2-norm ball", "radius ρ", "rise of the loss"),
        ({"kind": "noise"}, "Gaussian noise, every weight alike", "noise scale ρ", "rise of"),
        ({"quantity": "percent"}, "Euclidean, 2-norm ball", "radius ρ", "% of 1 + L"),
    ],
)
def test_a_panel_says_what_is_scanned(told, title, radius, value):
    result = scanned("a", square())
    result.diagnostics["scan"].update(told)
    drawn = plot_radius_scan(result)
    assert drawn.ax_.get_title(loc="left") == title
    assert drawn.ax_.get_xlabel().startswith(radius)
    assert value in drawn.ax_.get_ylabel()


def test_distances_and_scales_of_noise_do_not_share_axes():
    ball, noise = scanned("a", square()), scanned("b", square())
    noise.diagnostics["scan"]["kind"] = "noise"
    with pytest.raises(ValueError, match="cannot share an axis"):
        plot_radius_scan([ball, noise])
