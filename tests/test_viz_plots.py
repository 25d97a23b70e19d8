"""Plots, by what they draw: artists, labels, limits."""

import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.figure import Figure

from landscape.results import Cost, Estimate, Result
from landscape.viz import plot_layers, plot_spectral_density
from landscape.viz.display import svg

SIZE, WIDTH = 1000, 0.02
EIGENVALUES = (-0.2, 0.9, 3.0)


def result(measure, value=1.0, config=None, **diagnostics):
    estimate = Estimate(
        value=value, stderr=0.1, interval=(value - 0.2, value + 0.2), diagnostics=diagnostics
    )
    return Result(measure=measure, estimate=estimate, cost=Cost(), config=config or {})


def density(eigenvalues=EIGENVALUES, bulk=0.0, config=None, **changes):
    """Most eigenvalues at ``bulk``, the known ones apart."""
    grid = np.linspace(min(bulk, *eigenvalues) - 0.1, max(bulk, *eigenvalues) + 0.1, 800)
    places = np.array([*eigenvalues, bulk])
    weights = np.array([*[1 / SIZE] * len(eigenvalues), 1 - len(eigenvalues) / SIZE])
    bells = np.exp(-0.5 * ((grid[:, None] - places) / WIDTH) ** 2) / (WIDTH * np.sqrt(2 * np.pi))
    curve = bells @ weights
    diagnostics = {
        "grid": grid.tolist(),
        "density": curve.tolist(),
        "density_low": (0.5 * curve).tolist(),
        "density_high": (2.0 * curve).tolist(),
        "width": WIDTH,
        "eigenvalues": list(eigenvalues),
        "size": SIZE,
    }
    return result("hessian-spectral-density", 0.99, config, **(diagnostics | changes))


def layered(**layers):
    return result("hessian-trace", layers=layers)


def texts(ax):
    return [text.get_text() for text in ax.texts]


def bars(ax):
    return [c.patches[0] for c in ax.containers if isinstance(c, BarContainer)]


def test_density_draws_curve_band_and_eigenvalues():
    found = density()
    ax = plot_spectral_density(found).ax_
    curve = next(line for line in ax.lines if line.get_label() == "density")
    lowest = 0.01 / (SIZE * WIDTH * np.sqrt(2 * np.pi))  # below the axis
    np.testing.assert_allclose(curve.get_ydata(), np.maximum(found.diagnostics["density"], lowest))
    labels = {artist.get_label(): artist for artist in ax.collections}
    assert {"95 % band", "known eigenvalues"} <= set(labels)
    ticks = [segment[0, 0] for segment in labels["known eigenvalues"].get_segments()]
    np.testing.assert_allclose(ticks, EIGENVALUES)


def test_density_axes_say_what_they_show():
    ax = plot_spectral_density(density()).ax_
    assert ax.get_yscale() == "log"
    assert "Hessian eigenvalue" in ax.get_xlabel()
    assert "φ(λ)" in ax.get_ylabel()
    single = 1 / (SIZE * WIDTH * np.sqrt(2 * np.pi))
    low, high = ax.get_ylim()
    assert low == pytest.approx(0.1 * single)
    assert high > 2 * max(density().diagnostics["density_high"])
    assert ax.get_xlim() == pytest.approx((-0.3, 3.1))


def test_density_labels_the_extremes():
    ax = plot_spectral_density(density()).ax_
    assert r"$\lambda_\mathrm{max}$ = 3" in texts(ax)
    assert r"$\lambda_\mathrm{min}$ = −0.2" in texts(ax)


def test_density_does_not_call_a_known_eigenvalue_smallest_when_the_bulk_lies_below():
    ax = plot_spectral_density(density(eigenvalues=(0.9, 3.0))).ax_
    assert not any("min" in text for text in texts(ax))
    assert any("max" in text for text in texts(ax))


def test_density_away_from_zero_keeps_its_labels_inside():
    ax = plot_spectral_density(density(eigenvalues=(2.0, 2.5), bulk=2.2)).ax_
    low, high = ax.get_xlim()
    assert all(low <= text.xy[0] <= high for text in ax.texts)
    assert "one eigenvalue" in texts(ax)


def test_density_with_one_known_eigenvalue_labels_it_once():
    ax = plot_spectral_density(density(eigenvalues=(2.0,))).ax_
    assert sum("lambda" in text for text in texts(ax)) == 1


def test_density_without_known_eigenvalues_and_without_band():
    found = density()
    for key in ("eigenvalues", "density_low", "density_high"):
        del found.diagnostics[key]
    ax = plot_spectral_density(found).ax_
    assert texts(ax) == ["one eigenvalue"]


def test_density_of_gauss_newton_is_called_so():
    ax = plot_spectral_density(density(config={"operator": "ggn"})).ax_
    assert "Gauss–Newton" in ax.get_xlabel()


def test_density_needs_a_density():
    with pytest.raises(ValueError, match="holds no spectral density"):
        plot_spectral_density(result("hessian-trace"))


@pytest.mark.parametrize("field", ["grid", "density", "width", "size"])
def test_density_says_what_is_missing(field):
    found = density()
    del found.diagnostics[field]
    with pytest.raises(ValueError, match=field):
        plot_spectral_density(found)


def test_layers_draw_a_bar_and_an_interval_each():
    ax = plot_layers(
        layered(
            conv={"value": 2.0, "stderr": 0.1, "interval": [1.8, 2.25]},
            head={"value": -1.0, "stderr": 0.2},
        )
    ).ax_
    assert [bar.get_width() for bar in bars(ax)] == [2.0, -1.0]
    errors = [c for c in ax.containers if isinstance(c, ErrorbarContainer)]
    ends = [container[2][0].get_segments()[0][:, 0] for container in errors]
    np.testing.assert_allclose(ends, [[1.8, 2.25], [-1.392, -0.608]])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["conv", "head"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first layer on top
    assert texts(ax) == ["2.00 ± 0.10", "−1.00 ± 0.20"]
    assert ax.get_xlabel() == "hessian-trace"


def test_layers_without_error_have_no_error_bar():
    ax = plot_layers(layered(a={"value": 1.5, "size": 3})).ax_
    assert not any(isinstance(c, ErrorbarContainer) for c in ax.containers)
    assert texts(ax) == ["1.500"]


def test_layers_without_value_say_why():
    ax = plot_layers(layered(a={"value": 1.0}, b={"value": None, "status": "undefined"})).ax_
    assert len(bars(ax)) == 1
    assert texts(ax)[1] == "— undefined"


def test_layers_names_are_no_formulas():
    figure = plot_layers(layered(**{"a$_{": {"value": 1.0}, "b$^": {"value": 2.0}})).figure_
    assert svg(figure)


def test_layers_of_a_deep_network_are_the_largest_in_order():
    values = {f"block.{i}": {"value": float(i % 7)} for i in range(100)}
    ax = plot_layers(layered(**values), most=10).ax_
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert len(names) == 10
    assert names == sorted(names, key=lambda name: int(name.split(".")[1]))
    assert {int(name.split(".")[1]) % 7 for name in names} == {6}
    assert "10 largest of 100 layers" in ax.get_xlabel()


def test_layers_long_names_keep_both_ends():
    name = "encoder.layer.11.attention.output.dense.projection"
    ax = plot_layers(layered(**{name: {"value": 1.0}})).ax_
    shown = ax.get_yticklabels()[0].get_text()
    assert len(shown) < len(name)
    assert shown.startswith("encoder")
    assert shown.endswith("projection")


@pytest.mark.parametrize("diagnostics", [{}, {"layers": {}}])
def test_layers_need_layers(diagnostics):
    with pytest.raises(ValueError, match="no values by layer"):
        plot_layers(result("train-loss", **diagnostics))


@pytest.mark.parametrize(
    ("plot", "found"),
    [(plot_spectral_density, density()), (plot_layers, layered(a={"value": 1.0}))],
    ids=["density", "layers"],
)
class TestEveryPlot:
    def test_draws_on_given_axes(self, plot, found):
        ax = Figure().add_subplot()
        display = plot(found, ax)
        assert display.ax_ is ax
        assert display.figure_ is ax.get_figure()

    def test_draws_in_a_subfigure(self, plot, found):
        part = Figure().subfigures(1, 2)[0]
        display = plot(found, part.add_subplot())
        assert display.figure_ is part
        assert "<svg" in display._repr_svg_()

    def test_leaves_no_trace(self, plot, found):
        before = dict(mpl.rcParams)
        svg(plot(found).figure_)
        assert dict(mpl.rcParams) == before
        assert (
            "matplotlib.pyplot" not in sys.modules
            or not sys.modules["matplotlib.pyplot"].get_fignums()
        )

    def test_same_picture_same_bytes(self, plot, found):
        from landscape.viz import style

        with style():
            assert svg(plot(found).figure_) == svg(plot(found).figure_)


def test_pyplot_figures_are_not_shown_twice():
    from matplotlib import pyplot as plt

    figure, ax = plt.subplots()
    try:
        assert plot_layers(layered(a={"value": 1.0}), ax)._repr_svg_() is None
    finally:
        plt.close(figure)


def test_import_is_light():
    code = (
        "import sys, landscape.viz; "
        "sys.exit(any(name in sys.modules for name in ('matplotlib', 'jinja2')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
