"""The noise scan, by what it draws: estimates, the trace, the quadratic regime."""

import math

import numpy as np
import pytest
from matplotlib.container import ErrorbarContainer

from landscape.results import Cost, Estimate, Result
from landscape.viz import plot_noise_scan
from landscape.viz.display import svg

RADII = (0.001, 0.005, 0.01, 0.05, 0.1)
GAP = {"value": None, "stderr": None, "interval": [None, None], "status": "undefined"}


def point(at, value, half=None, **changes):
    half = 0.1 * abs(value) if half is None else half
    ends = [value - half, value + half]
    return {"at": at, "value": value, "stderr": half / 2, "interval": ends, "status": "ok"} | (
        changes
    )


def scanned(measure, points, parameter="rho", config=None, **diagnostics):
    diagnostics["scan"] = {"parameter": parameter, "points": points}
    estimate = Estimate(value=1.0, stderr=0.1, interval=(0.8, 1.2), diagnostics=diagnostics)
    return Result(measure=measure, estimate=estimate, cost=Cost(), config=config or {})


def texts(ax):
    return [text.get_text() for text in ax.texts]


def crosses(ax):
    found = [entry for entry in ax.lines if entry.get_marker() == "x"]
    return [tuple(place) for entry in found for place in entry.get_xydata()]


def squares(ax):
    return [entry for entry in ax.lines if entry.is_dashed()]


def noise(points=None, **diagnostics):
    points = [point(at, 9.0, 0.5) for at in RADII] if points is None else points
    return scanned("noise-stability", points, "sigma", **diagnostics)


def trace(value=8.9, half=0.4):
    estimate = Estimate(value=value, stderr=half / 2, interval=(value - half, value + half))
    return Result(measure="hessian-trace", estimate=estimate, cost=Cost())


def test_noise_scan_draws_estimates_with_error_bars():
    points = [point(0.01, 9.0, 0.5), point(0.1, 5.0, 0.25), {"at": 1.0} | GAP]
    ax = plot_noise_scan(noise(points)).ax_
    (bars,) = (entry for entry in ax.containers if isinstance(entry, ErrorbarContainer))
    np.testing.assert_allclose(bars[0].get_xydata(), [[0.01, 9.0], [0.1, 5.0]])
    ends = [segment[:, 1] for segment in bars[2][0].get_segments()]
    np.testing.assert_allclose(ends, [[8.5, 9.5], [4.75, 5.25]])
    assert crosses(ax) == [(1.0, 0.0)]
    assert ax.get_xlabel() == "noise scale σ   (× no value)"
    assert ax.get_ylabel() == "estimate of tr H"
    assert ax.get_xscale() == "log"


def test_noise_scan_shows_the_trace():
    ax = plot_noise_scan(noise(), trace()).ax_
    (band,) = (entry for entry in ax.patches if entry.get_label() == "trace, 95 %")
    corners = band.get_extents().transformed(ax.transData.inverted())
    assert (corners.y0, corners.y1) == pytest.approx((8.5, 9.3))
    assert "hessian-trace" in texts(ax)
    assert "hessian-trace" not in texts(plot_noise_scan(noise(), trace(math.nan)).ax_)
    assert "hessian-trace" not in texts(plot_noise_scan(noise()).ax_)


def test_noise_scan_marks_the_quadratic_regime():
    ax = plot_noise_scan(noise(quadratic_up_to=0.05)).ax_
    (upright,) = squares(ax)
    assert set(upright.get_xdata()) == {0.05}
    assert "quadratic up to σ = 0.05" in texts(ax)


@pytest.mark.parametrize("diagnostics", [{}, {"quadratic_up_to": None}])
def test_noise_scan_without_quadratic_regime_says_so(diagnostics):
    ax = plot_noise_scan(noise(**diagnostics)).ax_
    assert not squares(ax)
    assert texts(ax) == ["no quadratic regime established"]


def test_noise_scan_is_not_stretched_by_the_error_bar_of_a_small_scale():
    points = [point(0.001, 9.5, 4000.0), point(0.01, 9.0, 0.5), point(0.1, 5.0, 0.2)]
    low, high = plot_noise_scan(noise(points), trace()).ax_.get_ylim()
    assert -1 < low < 5
    assert 9.5 < high < 20


def test_noise_scan_of_many_magnitudes_is_logarithmic():
    points = [point(0.01, 9000.0), point(0.1, 5.0)]
    assert plot_noise_scan(noise(points)).ax_.get_yscale() == "log"


def test_noise_scan_without_any_estimate():
    ax = plot_noise_scan(noise([{"at": 0.1} | GAP])).ax_
    assert crosses(ax) == [(0.1, 0.0)]
    assert svg(ax.get_figure())


def test_noise_scan_of_uncertain_estimates_is_hollow():
    ax = plot_noise_scan(noise([point(0.1, 9.0, status="uncertain"), point(0.2, 9.0)])).ax_
    hollow = [entry for entry in ax.lines if entry.get_markerfacecolor() == "white"]
    assert [entry.get_xdata().tolist() for entry in hollow] == [[0.1]]


def test_noise_scan_refuses_other_results():
    with pytest.raises(ValueError, match="no scan over sigma"):
        plot_noise_scan(trace())
    with pytest.raises(ValueError, match="no scan over sigma"):
        plot_noise_scan(scanned("max-sharpness", [point(0.1, 1.0)]))
    with pytest.raises(ValueError, match="a result of 'hessian-trace'"):
        plot_noise_scan(noise(), noise())
