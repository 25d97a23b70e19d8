"""Pictures of slices, by what they draw: paths, arrays, bands, marks, labels, notes, bytes."""

import json
import re
import subprocess
import sys
import warnings

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr
from matplotlib import colormaps
from matplotlib.colors import LogNorm
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure

from landscape.viz.barcode import plot_barcode
from landscape.viz.slice_comparison import plot_slice_comparison
from landscape.viz.slice_contour import plot_slice_contour
from landscape.viz.slice_html import write_slice_html
from landscape.viz.slice_line import plot_slice_line
from landscape.viz.slice_scale import round_ticks, scale_of, tick_texts
from landscape.viz.slice_surface import plot_slice_surface
from landscape.viz.slices import plot_slice

STEEP, SHALLOW = 8.0, 0.5


def quadratic(alpha, beta):
    """Steep along alpha, so that its level sets are long along beta."""
    return 0.01 + 0.5 * (STEEP * alpha**2 + SHALLOW * beta**2)


def plane(
    function=quadratic, shape=(31, 21), span=(1.0, 1.0), attrs=None, units="a unit", **variables
):
    """Another number of points along each axis, so that a transposed array cannot be drawn."""
    alpha, beta = (np.linspace(-end, end, size) for end, size in zip(span, shape, strict=True))
    values = function(alpha[:, None], beta[None, :])
    dims = ("alpha", "beta")
    return xr.Dataset(
        {
            "train_loss": (dims, values),
            "train_loss_stderr": (dims, 0.1 * np.abs(values)),
            "train_accuracy": (dims, np.exp(-np.abs(values))),
            "evaluated": (dims, np.ones(values.shape, dtype=bool)),
            **variables,
        },
        coords={
            "alpha": ("alpha", alpha, {"label": "first direction", "units": units}),
            "beta": ("beta", beta, {"label": "second direction", "units": units}),
        },
        attrs=attrs or {},
    )


def curve(points=21, test=True, accuracy=True, attrs=None):
    alpha = np.linspace(-1, 1, points)
    found = {"train_loss": 0.1 + alpha**2}
    if test:
        found["test_loss"] = 0.2 + alpha**2
    if accuracy:
        found["train_accuracy"] = 1 - 0.5 * alpha**2
    errors = {f"{name}_stderr": 0.05 * values for name, values in found.items()}
    flags = {"evaluated": np.ones(points, dtype=bool)}
    return xr.Dataset(
        {name: ("alpha", values) for name, values in (found | errors | flags).items()},
        coords={"alpha": ("alpha", alpha, {"label": "a direction", "units": "‖w‖"})},
        attrs=attrs or {},
    )


def refined(dataset, **errors):
    dataset["evaluated"] = xr.zeros_like(dataset["evaluated"])
    dataset["evaluated"][::3] = True
    return dataset.assign_attrs(error_estimate=json.dumps(errors))


def with_trajectory(dataset, alpha, beta, residual):
    labels = [str(10 * place) for place in range(len(alpha))]
    found = {"alpha": alpha, "beta": beta, "residual": residual, "label": labels}
    return dataset.assign(
        {f"trajectory_{name}": ("checkpoint", values) for name, values in found.items()}
    )


def eigen(**changes):
    directions = [{"kind": "eigen", "norm": 2.0}, {"kind": "eigen", "norm": 2.0}]
    attrs = {
        "curvatures": json.dumps([STEEP / 4, SHALLOW / 4]),
        "directions": json.dumps(directions),
    }
    return plane(attrs=attrs | changes)


def filled(ax):
    (found,) = (part for part in ax.collections if isinstance(part, QuadContourSet) and part.filled)
    return found


def outlines(ax):
    return [part for part in ax.collections if isinstance(part, QuadContourSet) and not part.filled]


def key(ax):
    legend = ax.get_legend()
    return [] if legend is None else [text.get_text() for text in legend.get_texts()]


def notes(ax):
    return " ".join(" ".join(text.get_text() for text in ax.texts).split())


def line(ax, label):
    return next(part for part in ax.lines if part.get_label() == label)


def bands(ax):
    return [part.get_paths()[0].vertices for part in ax.collections if part.get_label() == "_95 %"]


def at_points(path):
    """Corners of the triangulated rows of a band, lower and upper end by place."""
    ends = {}
    for x, y in path:
        ends.setdefault(round(float(x), 9), []).append(float(y))
    return {x: (min(values), max(values)) for x, values in ends.items()}


# Contours


def test_level_sets_lie_where_the_function_has_them():
    ax = plot_slice_contour(plane(shape=(201, 151)), levels=[0.05, 0.1, 0.2]).ax_
    (lines,) = outlines(ax)
    path = lines.get_paths()[1].vertices
    np.testing.assert_allclose(quadratic(path[:, 0], path[:, 1]), 0.1, atol=2e-4)
    # Long along beta, the vertical axis.
    np.testing.assert_allclose(np.ptp(path[:, 0]), 2 * np.sqrt(2 * 0.09 / STEEP), rtol=0.01)
    np.testing.assert_allclose(np.ptp(path[:, 1]), 2 * np.sqrt(2 * 0.09 / SHALLOW), rtol=0.01)


def test_dims_in_another_order_make_the_same_picture():
    dataset = plane()
    paths = [
        filled(plot_slice_contour(found).ax_).get_paths()
        for found in (dataset, dataset.transpose("beta", "alpha"))
    ]
    for first, second in zip(*paths, strict=True):
        np.testing.assert_array_equal(first.vertices, second.vertices)


def test_names_of_axes_are_on_their_axes():
    display = plot_slice_contour(plane())
    assert display.ax_.get_xlabel() == "first direction (a\N{NO-BREAK SPACE}unit)"
    assert display.ax_.get_ylabel() == "second direction (a\N{NO-BREAK SPACE}unit)"
    assert display.colorbar_.ax.get_ylabel() == "train loss"


def test_without_names_the_axes_are_still_named():
    dataset = plane()
    dataset["alpha"].attrs, dataset["beta"].attrs = {}, {}
    ax = plot_slice_contour(dataset).ax_
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("direction 1", "direction 2")


def test_explained_variance_stands_on_the_axis():
    ax = plot_slice_contour(plane(attrs={"explained_variance": json.dumps([0.712, 0.05])})).ax_
    assert "71 % of the variance" in " ".join(ax.get_xlabel().split())
    assert "5 % of the variance" in " ".join(ax.get_ylabel().split())


def test_names_are_no_formulas(tmp_path):
    dataset = plane()
    dataset["alpha"].attrs["label"] = "a$_{ and more"
    dataset["train_loss"].attrs["label"] = "b$^"
    assert plot_slice(dataset).save(tmp_path / "slice.svg").exists()


@pytest.mark.parametrize(
    ("units", "norms", "equal"),
    [("m", None, True), ("", None, True), ("", (1.0, 1.005), True), ("", (1.0, 3.0), False)],
)
def test_steps_are_equally_long_where_units_are_the_same(units, norms, equal):
    attrs = {"directions": json.dumps([{"norm": norm} for norm in norms])} if norms else {}
    ax = plot_slice_contour(plane(units=units, attrs=attrs)).ax_
    assert ax.get_aspect() == (1.0 if equal else "auto")


def test_steps_of_other_units_are_not():
    dataset = plane()
    dataset["beta"].attrs["units"] = "another"
    assert plot_slice_contour(dataset).ax_.get_aspect() == "auto"


def test_a_sliver_is_stretched():
    assert plot_slice_contour(plane(span=(1.0, 0.01))).ax_.get_aspect() == "auto"


def test_checkpoint_is_marked_where_it_is():
    ax = plot_slice_contour(plane()).ax_
    assert line(ax, "checkpoint").get_xydata().tolist() == [[0, 0]]
    assert "checkpoint" in key(ax)


def test_checkpoint_outside_is_not_marked():
    dataset = plane().assign_coords(alpha=np.linspace(1, 2, 31))
    assert "checkpoint" not in key(plot_slice_contour(dataset).ax_)


def test_points_that_are_not_finite_are_hatched_and_named():
    dataset = plane()
    dataset["train_loss"][10, 4] = np.nan
    dataset["train_loss"][0, 20] = np.inf
    ax = plot_slice_contour(dataset).ax_
    (hatched,) = (part for part in ax.collections if part.get_label() == "_missing")
    assert hatched.get_hatch()
    alpha, beta = dataset["alpha"].values, dataset["beta"].values
    boxes = [path.get_extents().extents for path in hatched.get_paths()]
    found = sorted(tuple(np.round(box, 9)) for box in boxes)
    expected = [
        (alpha[0], beta[19], alpha[1], beta[20]),
        (alpha[9], beta[3], alpha[11], beta[5]),
    ]
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert "NaN or infinite" in key(ax)
    # No colour where there is no value.
    centre = (alpha[10], beta[4])
    assert not any(path.contains_point(centre) for path in filled(ax).get_paths())
    assert any(path.contains_point((alpha[10], beta[10])) for path in filled(ax).get_paths())


def test_points_that_are_not_there_yet_are_no_nan():
    dataset = plane()
    dataset["train_loss"][20:] = np.nan
    dataset["evaluated"][20:] = False
    ax = plot_slice_contour(dataset).ax_
    assert "not evaluated yet" in key(ax)
    assert not any("NaN" in text for text in key(ax))
    assert not any(part.get_label() == "_missing" for part in ax.collections)
    assert "interpolated" not in notes(ax)


def test_nothing_but_nan():
    display = plot_slice_contour(plane(lambda a, b: np.nan * a * b))
    assert display.colorbar_ is None
    assert "NaN" in key(display.ax_)


def test_values_above_the_top_are_clipped_with_an_arrow():
    display = plot_slice_contour(plane(), top=1.5)
    assert display.colorbar_.extend == "max"
    assert filled(display.ax_).levels[-1] == 1.5
    assert plot_slice_contour(plane()).colorbar_.extend == "neither"
    assert plot_slice_contour(plane(), levels=[0.5, 1, 2]).colorbar_.extend == "both"


def test_shares_and_measured_error_of_interpolated_points():
    dataset = refined(plane(), train_loss=0.002)
    ax = plot_slice_contour(dataset).ax_
    share = float(dataset["evaluated"].mean())
    amount = 0.002 * float(np.ptp(dataset["train_loss"].values))
    assert notes(ax) == (
        f"{100 * share:.0f} % of the points evaluated, the rest interpolated; "
        f"measured error 0.2 % of the range, {amount:.1g}"
    )
    dataset.attrs["error_scale"] = "log"
    told = notes(plot_slice_contour(dataset).ax_)
    assert told.endswith("measured error 0.2 % of the range of its logarithm")
    assert "evaluated" not in key(ax)
    dots = line(plot_slice_contour(dataset, evaluated=True).ax_, "evaluated")
    assert len(dots.get_xdata()) == int(dataset["evaluated"].sum())
    assert set(dots.get_xdata()) == set(dataset["alpha"].values[::3])


def test_a_dense_slice_needs_no_note():
    assert notes(plot_slice_contour(plane(attrs={"cosine": 0.001})).ax_) == ""


def test_skewed_directions_are_said():
    ax = plot_slice_contour(plane(attrs={"cosine": -0.42})).ax_
    assert notes(ax) == "directions not orthogonal: cosine −0.42"


def test_quadratic_model_has_the_curvature_of_unit_directions():
    ax = plot_slice_contour(eigen(), quadratic=True, levels=[0.1, 0.2, 0.5]).ax_
    _, model = outlines(ax)
    for level, path in zip(model.levels, model.get_paths(), strict=True):
        x, y = path.vertices.T
        np.testing.assert_allclose(quadratic(x, y), level, rtol=5e-3)
    assert "quadratic model" in key(ax)


def test_quadratic_model_needs_curvatures():
    with pytest.raises(ValueError, match="needs a loss and the curvatures"):
        plot_slice_contour(plane(), quadratic=True)
    with pytest.raises(ValueError, match="needs a loss and the curvatures"):
        plot_slice_contour(eigen(), variable="train_accuracy", quadratic=True)


def test_trajectory_is_drawn_in_order_and_coloured_by_its_residual():
    alpha, beta, residual = [0.9, 0.5, 0.1, 0.0], [-0.8, -0.7, -0.2, 0.0], [0.0, 2.0, 1.0, 0.0]
    ax = plot_slice_contour(with_trajectory(plane(), alpha, beta, residual)).ax_
    np.testing.assert_array_equal(line(ax, "_trajectory").get_xydata(), np.transpose([alpha, beta]))
    (markers,) = (part for part in ax.collections if part.get_label() == "_checkpoints")
    np.testing.assert_array_equal(markers.get_array(), residual)
    assert markers.get_clim() == (0, 2)
    bars = [child.get_xlabel() for child in ax.child_axes]
    assert "distance of the checkpoint from the plane" in bars
    labels = {text.get_text(): text.xy for text in ax.texts}
    assert labels["0"] == (0.9, -0.8)
    assert labels["30"] == (0.0, 0.0)
    plain = plot_slice_contour(with_trajectory(plane(), alpha, beta, residual), trajectory=False)
    assert not any(part.get_label() == "_trajectory" for part in plain.ax_.lines)


def test_trajectory_outside_is_said_and_does_not_move_the_picture():
    dataset = with_trajectory(plane(), [3.0, 0.5, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, 0.0])
    ax = plot_slice_contour(dataset).ax_
    assert ax.get_xlim() == (-1, 1)
    assert "1 of 3 checkpoints lies outside the picture" in notes(ax)
    # All in the plane: no colour bar for distances.
    assert not any("distance" in child.get_xlabel() for child in ax.child_axes)


# Levels


def test_levels_of_a_loss_are_even_in_the_logarithm_and_cover_it():
    scale = scale_of([np.geomspace(0.02, 30, 50)], "train_loss", None, None)
    steps = np.diff(np.log10(scale.levels))
    np.testing.assert_allclose(steps, steps[0])
    assert scale.log
    assert isinstance(scale.norm(), LogNorm)
    assert scale.levels[0] <= 0.02
    assert scale.levels[-1] >= 30
    assert np.isclose(scale.levels[:, None], [0.1, 1, 10]).any(axis=0).all()
    assert 8 <= len(scale.levels) <= 16


@pytest.mark.parametrize(
    ("values", "variable"),
    [
        ([0.0, 1.0, 10.0], "train_loss"),
        ([-1.0, 5.0], "train_loss"),
        ([2.30, 2.31], "train_loss"),
        ([0.1, 0.9], "train_accuracy"),
    ],
)
def test_levels_are_even_where_a_logarithm_makes_no_sense(values, variable):
    scale = scale_of([np.array(values)], variable, None, None)
    steps = np.diff(scale.levels)
    np.testing.assert_allclose(steps, steps[0])
    assert not scale.log
    assert scale.levels[0] <= min(values)
    assert scale.levels[-1] >= max(values)
    assert scale.extend == "neither"


def test_one_value_is_one_tick():
    scale = scale_of([np.full(9, 2.3)], "train_loss", None, None)
    assert scale.ticks() == [2.3]
    assert scale.levels[0] < 2.3 < scale.levels[1]


def test_levels_over_many_decades_are_few():
    scale = scale_of([np.array([1e-30, 1e30])], "train_loss", None, None)
    assert len(scale.levels) < 20
    assert len(scale.ticks()) <= 7


def test_a_logarithm_where_it_is_asked_for():
    scale = scale_of([np.array([0.0, 1.0, 100.0])], "train_loss", "log", None)
    assert scale.log
    assert scale.extend == "min"
    assert (scale.clipped(np.array([0.0, 5.0])) > 0).all()
    with pytest.raises(ValueError, match="no value is positive"):
        scale_of([np.array([-1.0, 0.0])], "train_loss", "log", None)


@pytest.mark.parametrize("levels", [[1.0], [1.0, 1.0], [2.0, 1.0]])
def test_levels_have_to_ascend(levels):
    with pytest.raises(ValueError, match="ascend"):
        plot_slice_contour(plane(), levels=levels)


def test_top_below_everything():
    with pytest.raises(ValueError, match="below all values"):
        plot_slice_contour(plane(), top=0.001)
    with pytest.raises(ValueError, match="below all values"):
        plot_slice_line(curve(), top=0.001)


def test_ticks_are_told_apart_in_few_digits():
    assert tick_texts([0.01, 0.1, 1.0]) == ["0.01", "0.1", "1"]
    assert tick_texts([1e-6, 1e6]) == ["10⁻⁶", "10⁶"]
    assert tick_texts([-0.5, 0.0]) == ["−0.5", "0"]
    assert len(set(tick_texts([2.302585, 2.302586]))) == 2
    assert round_ticks(0.02, 30, log=True) == pytest.approx([0.1, 1, 10])
    assert round_ticks(0.02, 3, log=True) == pytest.approx([0.03, 0.1, 0.3, 1, 3])


# Curves


def test_band_is_196_standard_errors():
    dataset = curve(test=False, accuracy=False)
    ax = plot_slice_line(dataset).ax_
    (band,) = map(at_points, bands(ax))
    for alpha, value, error in zip(
        dataset["alpha"].values,
        dataset["train_loss"].values,
        dataset["train_loss_stderr"].values,
        strict=True,
    ):
        low, high = band[round(float(alpha), 9)]
        assert low == pytest.approx(value - 1.96 * error)
        assert high == pytest.approx(value + 1.96 * error)
    drawn = line(ax, "train loss")
    np.testing.assert_array_equal(drawn.get_ydata(), dataset["train_loss"])
    assert ax.get_xlabel() == "a direction (‖w‖)"
    assert ax.get_ylabel() == "train loss"


def test_accuracy_has_an_axis_of_its_own():
    display = plot_slice_line(curve())
    twin = display.accuracy_ax_
    np.testing.assert_array_equal(
        line(twin, "train accuracy").get_ydata(), curve()["train_accuracy"]
    )
    assert line(twin, "train accuracy").is_dashed()
    assert twin.get_ylabel() == "accuracy"
    assert display.ax_.get_ylabel() == "loss"
    assert key(display.ax_) == ["train loss", "test loss", "train accuracy", "checkpoint"]
    # One colour for one split.
    color = line(display.ax_, "train loss").get_color()
    assert line(twin, "train accuracy").get_color() == color
    assert plot_slice_line(curve(), accuracy=False).accuracy_ax_ is None


def test_gaps_crosses_and_triangles():
    dataset = curve(test=False, accuracy=False)
    dataset["train_loss"][:2] = np.nan
    dataset["train_loss"][-1] = -np.inf
    ax = plot_slice_line(dataset, top=0.5).ax_
    alpha = dataset["alpha"].values
    crosses = next(part for part in ax.lines if part.get_marker() == "x")
    np.testing.assert_array_equal(crosses.get_xdata(), alpha[[0, 1, -1]])
    above = next(part for part in ax.lines if part.get_marker() == "^")
    high = np.isfinite(dataset["train_loss"]) & (dataset["train_loss"] > 0.5)
    np.testing.assert_array_equal(above.get_xdata(), alpha[high])
    assert ax.get_ylim()[1] == 0.5
    assert {"NaN or infinite", "above the axis"} <= set(key(ax))
    assert np.isnan(line(ax, "train loss").get_ydata()[[0, 1, -1]]).all()


def test_a_curve_that_even_steps_hide_is_logarithmic():
    dataset = curve(test=False, accuracy=False)
    assert plot_slice_line(dataset).ax_.get_yscale() == "linear"
    dataset["train_loss"] = 1e-3 * np.exp(14 * np.abs(dataset["alpha"]))
    assert plot_slice_line(dataset).ax_.get_yscale() == "log"
    assert plot_slice_line(dataset, scale="linear").ax_.get_yscale() == "linear"


def test_curve_of_interpolated_points():
    dataset = refined(curve(), train_loss=0.001, test_loss=0.004)
    ax = plot_slice_line(dataset, evaluated=True).ax_
    assert "33 % of the points evaluated" in notes(ax)
    assert "measured error 0.4 % of the range" in notes(ax)
    dots = next(part for part in ax.lines if part.get_label() == "_evaluated")
    np.testing.assert_array_equal(dots.get_xdata(), dataset["alpha"][::3])


def test_curve_without_any_value():
    dataset = curve(test=False, accuracy=False)
    dataset["train_loss"][:] = np.nan
    assert "NaN" in key(plot_slice_line(dataset).ax_)


# Surfaces


def faces(ax):
    (surface,) = ax.collections
    return surface._faces[~surface._invalid_vertices]  # corners of the drawn faces


def test_surface_has_the_heights_of_its_points():
    display = plot_slice_surface(plane())
    corners = faces(display.ax_)
    np.testing.assert_allclose(
        corners[:, 2], np.log10(quadratic(corners[:, 0], corners[:, 1])), atol=1e-9
    )
    assert len(corners) >= 30 * 20 * 4
    assert display.ax_.get_xlabel().startswith("first")
    assert display.ax_.get_ylabel().startswith("second")
    assert display.colorbar_.ax.get_ylabel() == "train loss"


def test_surface_has_holes_and_is_cut():
    dataset = plane()
    dataset["train_loss"][10, 4] = np.nan
    display = plot_slice_surface(dataset, top=1.0)
    corners = faces(display.ax_)
    hole = (float(dataset["alpha"][10]), float(dataset["beta"][4]))
    assert not any(np.allclose(corner[:2], hole) for corner in corners)
    assert corners[:, 2].max() == pytest.approx(0.0)
    assert display.colorbar_.extend == "max"
    assert "hole: NaN" in key(display.ax_)
    # Faces beside the hole have a colour of their height, not of nothing.
    (surface,) = display.ax_.collections
    lowest = colormaps["viridis"](0.0)
    dark = np.isclose(surface._facecolor3d, lowest).all(axis=1)
    assert not dark.any()


def test_surface_needs_axes_in_space():
    with pytest.raises(ValueError, match="projection"):
        plot_slice_surface(plane(), Figure().add_subplot())
    ax = Figure().add_subplot(projection="3d")
    assert plot_slice_surface(plane(), ax).ax_ is ax


def test_page_is_one_file_that_loads_nothing(tmp_path):
    pytest.importorskip("plotly")
    dataset = plane()
    dataset["train_loss"][3, 3] = np.nan
    dataset["alpha"].attrs["label"] = "</script><script src='http://x'>"
    first = write_slice_html(dataset, tmp_path / "a.html", top=2.0).read_text()
    second = write_slice_html(dataset, tmp_path / "b.html", top=2.0).read_text()
    assert first == second
    assert "Plotly.newPlot" in first
    assert not re.search(r"<script[^>]*\bsrc\s*=", first)
    assert not re.search(r"<(link|img|iframe)[^>]*http", first)
    assert "cut above 2" in first


def test_page_has_rows_along_beta():
    from landscape.viz.slice_html import _surface

    dataset = plane()
    scale = scale_of([dataset["train_loss"].values], "train_loss", None, None)
    trace = _surface(dataset, "train_loss", scale)
    assert trace["z"].shape == (21, 31)
    assert trace["z"][2, 7] == pytest.approx(
        np.log10(quadratic(dataset["alpha"].values[7], dataset["beta"].values[2]))
    )
    assert trace["text"][2, 7].startswith(f"α = {dataset['alpha'].values[7]:.4g}")


def test_without_plotly_the_page_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    with pytest.raises(ImportError, match="pip install"):
        write_slice_html(plane(), tmp_path / "slice.html")
    assert not list(tmp_path.iterdir())


# Side by side


def test_planes_side_by_side_share_levels_and_limits():
    low, high = plane(), plane(lambda a, b: 5 * quadratic(a, b), span=(2.0, 2.0))
    display = plot_slice_comparison({"low": low, "high": high})
    first, second = display.axes_
    np.testing.assert_array_equal(filled(first).levels, filled(second).levels)
    assert filled(first).norm.vmax == filled(second).norm.vmax
    assert filled(first).levels[-1] >= float(high["train_loss"].max())
    assert first.get_xlim() == second.get_xlim() == (-2, 2)
    assert [ax.get_title(loc="left") for ax in display.axes_] == ["low", "high"]
    assert display.colorbar_.ax.get_ylabel() == "train loss"


def test_curves_side_by_side_share_their_axis():
    steep = curve()
    steep["train_loss"] = 4 * steep["train_loss"]
    first, second = plot_slice_comparison({"flat": curve(), "steep": steep}).axes_
    assert first.get_ylim() == second.get_ylim()
    assert first.get_ylim()[1] > 4.4
    assert first.get_ylabel() == "loss"
    assert second.get_ylabel() == ""


def test_comparison_draws_on_given_axes():
    axes = Figure().subplots(1, 2)
    display = plot_slice_comparison({"a": plane(), "b": plane()}, axes)
    assert list(display.axes_) == list(axes)
    with pytest.raises(ValueError, match="as many axes"):
        plot_slice_comparison({"a": plane()}, axes)


def test_comparison_refuses_what_cannot_be_compared():
    with pytest.raises(ValueError, match="at least one"):
        plot_slice_comparison({})
    with pytest.raises(ValueError, match="draw them apart"):
        plot_slice_comparison({"a": plane(), "b": curve()})
    with pytest.raises(ValueError, match="no levels"):
        plot_slice_comparison({"a": curve()}, levels=5)


def test_comparison_says_the_range_of_shares():
    first, second = refined(plane(), train_loss=0.002), refined(plane(), train_loss=0.004)
    second["evaluated"][::2] = True
    display = plot_slice_comparison({"a": first, "b": second})
    low, high = (100 * float(dataset["evaluated"].mean()) for dataset in (first, second))
    found = notes(display.axes_[0])
    assert f"{low:.0f} to {high:.0f} % of the points evaluated" in found
    assert "measured error 0.4 % of the range" in found


# Barcodes

PAIRS = [(0.3, 0.4), (0.1, np.inf), (0.2, 0.9), (0.5, 0.5)]


def test_bars_run_from_birth_to_death_the_longest_first():
    ax = plot_barcode(PAIRS).ax_
    bars = sorted(
        (segment[0, 1], segment[0, 0], segment[1, 0])
        for part in ax.collections
        for segment in part.get_segments()
    )
    right = ax.get_xlim()[1]
    np.testing.assert_allclose(bars, [(0, 0.1, right), (1, 0.2, 0.9), (2, 0.3, 0.4)])
    assert ax.get_ylim()[0] > ax.get_ylim()[1]
    (arrow,) = (part for part in ax.lines if part.get_marker() == ">")
    assert arrow.get_xydata().tolist() == [[right, 0]]
    assert ax.get_xlabel() == "loss"


def test_only_the_longest_bars_and_a_note():
    births = np.arange(1, 101) / 100
    display = plot_barcode(np.stack([births, 1.5 * births], axis=1), most=10, label="train loss")
    (part,) = display.ax_.collections
    assert min(segment[0, 0] for segment in part.get_segments()) == pytest.approx(0.91)
    assert notes(display.ax_) == "the 10 longest of 100 bars"


@pytest.mark.parametrize(
    ("pairs", "text"),
    [
        ([1.0, 2.0, 3.0], "shape"),
        ([(np.nan, 1.0)], "birth"),
        ([(2.0, 1.0)], "before its birth"),
        ([(2.0, np.nan)], "NaN"),
    ],
)
def test_barcode_refuses(pairs, text):
    with pytest.raises(ValueError, match=text):
        plot_barcode(pairs)


def test_barcode_of_nothing_is_empty():
    assert not plot_barcode(np.empty((0, 2))).ax_.collections


# All


def test_dispatch_on_the_number_of_directions():
    assert plot_slice(plane()).colorbar_ is not None
    assert plot_slice(curve()).accuracy_ax_ is not None
    assert plot_slice(curve(), variable="train_accuracy").ax_.get_ylabel() == "train accuracy"
    display = plot_slice(plane(), variable="train_accuracy", evaluated=True)
    assert display.colorbar_.ax.get_ylabel() == "train accuracy"


@pytest.mark.parametrize(
    ("draw", "text"),
    [
        (lambda: plot_slice(xr.Dataset({"x": ("gamma", [1.0, 2.0])})), "no dimension 'alpha'"),
        (lambda: plot_slice(plane(shape=(1, 5))), "one point only"),
        (lambda: plot_slice(plane(), variable="val_loss"), "it holds 'train_loss'"),
        (lambda: plot_slice(plane(), variable="train_loss_stderr"), "holds no values"),
        (lambda: plot_slice_line(plane()), "two directions, not 1"),
        (lambda: plot_slice_contour(curve()), "one direction, not 2"),
        (lambda: plot_slice_surface(curve()), "one direction, not 2"),
        (lambda: plot_slice(plane()[["evaluated"]]), "holds no values"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_words(draw, text):
    with pytest.raises(ValueError, match=text):
        draw()


TRAJECTORY = ([0.9, 0.4, 0.0], [0.5, 0.6, 0.0], [1.0, 2.0, 0.0])
PLOTS = {
    "curve": lambda ax=None: plot_slice(refined(curve(), train_loss=0.1), ax),
    "contour": lambda ax=None: plot_slice(with_trajectory(plane(), *TRAJECTORY), ax),
    "barcode": lambda ax=None: plot_barcode(PAIRS, ax),
}
OWN = PLOTS | {
    "surface": lambda: plot_slice_surface(plane()),
    "planes": lambda: plot_slice_comparison({"a": plane(), "b": plane()}),
    "curves": lambda: plot_slice_comparison({"a": curve(), "b": curve()}),
}


@pytest.mark.parametrize("plot", PLOTS.values(), ids=PLOTS)
@pytest.mark.parametrize("layout", [None, "constrained"])
def test_draws_on_given_axes(plot, layout, tmp_path):
    figure = Figure(figsize=(6.8, 3), layout=layout)
    _, ax = figure.subplots(1, 2)
    display = plot(ax)
    assert display.ax_ is ax
    assert display.figure_ is figure
    assert figure.get_size_inches().tolist() == [6.8, 3]
    display.save(tmp_path / "given.png")


@pytest.mark.parametrize(
    ("name", "ending"),
    [("contour", "png"), ("contour", "pdf"), ("curve", "pdf"), *[(name, "svg") for name in OWN]],
)
def test_same_picture_same_bytes(name, ending, tmp_path):
    first, second = (OWN[name]().save(tmp_path / f"{part}.{ending}") for part in "ab")
    assert first.read_bytes() == second.read_bytes()


@pytest.fixture(scope="module", params=OWN.values(), ids=OWN)
def drawn(request):
    figure = request.param().ax_.get_figure(root=True)
    figure.draw_without_rendering()
    return figure


def test_nothing_is_cut_off_and_the_width_is_a_column(drawn):
    width, height = drawn.get_size_inches()
    assert width in {3.3, 6.8}
    box = drawn.get_tightbbox()
    assert -0.001 <= box.x0 < box.x1 <= width + 0.001
    assert -0.001 <= box.y0 < box.y1 <= height + 0.001


def test_no_letters_over_letters(drawn):
    if drawn.axes[0].name == "3d":
        pytest.skip("boxes around slanted text are larger than the text")
    axes = [*drawn.axes, *(child for ax in drawn.axes for child in ax.child_axes)]
    boxes = [
        text.get_window_extent()
        for ax in axes
        for axis in (ax.xaxis, ax.yaxis)
        if axis.get_visible()
        for text in (*axis.get_ticklabels(), axis.label)
        if text.get_visible() and text.get_text()
    ]
    assert len(boxes) > 4
    for place, box in enumerate(boxes):
        assert not box.count_overlaps(boxes[place + 1 :])


@pytest.mark.parametrize("plot", [OWN["contour"], OWN["planes"]])
def test_no_white_is_left_beside_planes(plot):
    display = plot()
    figure = display.ax_.get_figure(root=True)
    figure.draw_without_rendering()
    width, height = figure.get_size_inches()
    box = figure.get_tightbbox()
    assert box.width > 0.97 * width
    assert box.height > 0.97 * height


@pytest.mark.parametrize("plot", OWN.values(), ids=OWN)
def test_leaves_no_trace(plot):
    before = dict(mpl.rcParams)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot()
    assert dict(mpl.rcParams) == before
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()


def test_datasets_are_not_changed():
    dataset = refined(with_trajectory(plane(), *TRAJECTORY), train_loss=0.1)
    dataset["train_loss"][2, 2] = np.nan
    line_dataset = curve()
    line_dataset["train_loss"][3] = np.inf
    copies = dataset.copy(deep=True), line_dataset.copy(deep=True)
    plot_slice(dataset, top=1.0, evaluated=True)
    plot_slice_surface(dataset, top=1.0)
    plot_slice_comparison({"a": dataset, "b": dataset})
    plot_slice(line_dataset, top=0.5)
    xr.testing.assert_identical(dataset, copies[0])
    xr.testing.assert_identical(line_dataset, copies[1])


def test_import_is_light():
    code = (
        "import sys, landscape.viz.slices, landscape.viz.slice_html, landscape.viz.barcode; "
        "import landscape.viz.slice_comparison; "
        "sys.exit(any(name in sys.modules for name in ('matplotlib', 'plotly')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
