"""Pictures of rank correlations and their report: what is drawn, named, kept and escaped."""

import base64
import json
import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

import landscape
from landscape.correlation import Correlations, Options
from landscape.viz import correlation_names as names
from landscape.viz import (
    plot_between,
    plot_coverage,
    plot_forest,
    plot_granulated,
    plot_scan_correlations,
    plot_scatters,
    plot_sign_errors,
    render_correlation_report,
    write_correlation_report,
)
from landscape.viz.correlation_colours import explaining_axis
from landscape.viz.correlation_heatmaps import clustered
from landscape.viz.correlation_scans import scans_of

HOSTILE = "<script>alert(1)</script>$x_1$"
FAST = Options(bootstraps=100, permutations=100)


def population(seeds=4):
    """24 configurations; the target follows lr, `trace` the target, `other` nothing."""
    random = np.random.default_rng(0)
    grid = [(lr, width, method) for lr in (1, 2, 3) for width in (8, 16, 32, 64) for method in "ab"]
    frame = pd.DataFrame(
        [(*row, seed) for row in grid for seed in range(seeds)],
        columns=["hp.lr", "hp.width", "hp.method", "hp.seed"],
    )
    noise = random.normal(size=(8, len(frame)))
    frame["train_loss"] = np.exp(noise[0])
    frame["gap_accuracy"] = 0.1 * frame["hp.lr"] + 0.05 * noise[1]
    frame["trace"] = np.exp(10 * frame["gap_accuracy"] + noise[2])
    frame["other"] = noise[3]
    frame["reversed"] = -frame["gap_accuracy"] + 0.1 * noise[4]
    frame["partly"] = np.where(frame["hp.seed"] > 0, noise[5], np.nan)
    frame["constant"] = 2.0
    frame["renyi[alpha=0.5,power=2]"] = frame["gap_accuracy"] + noise[6]
    frame["renyi[alpha=1.5,power=2]"] = frame["gap_accuracy"] + 0.1 * noise[6]
    for radius in (0.01, 0.1, 1.0):
        frame[f"trace@{radius:g}"] = frame["trace"] + radius * noise[7]
    frame["trace:last-layer"] = frame["trace"] * np.exp(noise[7])
    frame[HOSTILE] = noise[6]
    return frame


@pytest.fixture(scope="module")
def found():
    return landscape.correlate(population(), options=FAST)


def labels(axis):
    return [tick.get_text() for tick in axis.get_ticklabels()]


def test_the_forest_is_sorted_with_missing_ones_named_and_controls_below(found):
    ax = plot_forest(found).ax_
    rows = labels(ax.yaxis)
    own = [row for row in rows if not row.startswith("control")]
    assert rows[len(own) :] == names.ranked(found, names.controls_of(found))
    tau = found.table.loc[own, "tau"].dropna()
    assert list(tau) == sorted(tau, reverse=True)
    assert own[-1] == "constant"
    assert any("constant" in text.get_text() for text in ax.texts)
    assert not any("@" in row or ":last" in row for row in own)  # those stand in the scans
    assert ax.get_xlim()[0] < -1
    assert ax.get_xlim()[1] > 1


def test_the_forest_draws_tau_its_interval_and_partial_tau_beside_it(found):
    ax = plot_forest(found, measures=["reversed"]).ax_
    row = found.table.loc["reversed"]
    drawn = [tuple(np.round(line.get_xdata(), 12)) for line in ax.lines]
    for kind in ("", "[train_loss]"):
        stem = "partial" if kind else "tau"
        low, high = row[f"{stem}_low{kind}"], row[f"{stem}_high{kind}"]
        assert (round(low, 12), round(high, 12)) in drawn
        assert (round(row[f"{stem}{kind}"], 12),) in drawn
    assert row["tau"] < 0  # the sign is kept
    assert any("partial τ given train_loss" in text.get_text() for text in ax.get_legend().texts)


def test_the_forest_refuses_what_it_does_not_have(found):
    with pytest.raises(ValueError, match="no measure 'trac'"):
        plot_forest(found, measures=["trac"])
    with pytest.raises(ValueError, match="no partial τ given epochs"):
        plot_forest(found, given=["epochs"])


def test_scatters_have_logarithmic_axes_where_values_span_decades_and_count_missing(found):
    axes = plot_scatters(found, measures=["trace", "other", "partly"]).figure_.axes
    assert [ax.get_xscale() for ax in axes[:3]] == ["log", "linear", "linear"]
    texts = [text.get_text() for text in axes[2].texts]
    assert texts == [f"τ = {names.two_digits(found.table.loc['partly', 'tau'])}   72 of 96"]
    assert len(axes[2].collections[0].get_offsets()) == 72


def test_scatters_are_coloured_by_the_axis_that_explains_most_or_the_one_asked_for(found):
    assert explaining_axis(found) == "hp.lr"
    figure = plot_scatters(found, measures=["trace"]).figure_
    assert [text.get_text() for text in figure.legends[0].texts] == ["lr", "1", "2", "3"]
    figure = plot_scatters(found, measures=["trace"], colour="method").figure_
    assert [text.get_text() for text in figure.legends[0].texts] == ["method", "a", "b"]
    colors = {to_hex(color) for color in figure.axes[0].collections[0].get_facecolors()}
    assert colors == {"#0072b2", "#d55e00"}
    with pytest.raises(ValueError, match=r"no column 'rate' .* lr, width, method"):
        plot_scatters(found, colour="rate")


def test_the_granulated_heat_map_holds_psi_and_its_mean(found):
    ax = plot_granulated(found).ax_
    assert labels(ax.xaxis) == ["lr", "width", "method", "mean Ψ"]
    values = ax.images[0].get_array().filled(np.nan)
    row = labels(ax.yaxis).index("trace")
    long = found.granulated.set_index(["measure", "axis"])["psi"]
    assert values[row, 0] == pytest.approx(long["trace", "hp.lr"])
    assert values[row, -1] == pytest.approx(found.table.loc["trace", "psi"])
    assert ax.images[0].get_clim() == (-1, 1)


def test_measures_that_order_models_alike_stand_side_by_side(found):
    order = clustered(found.between, names.measures_of(found))
    assert "constant" not in order
    assert abs(order.index("trace") - order.index("reversed")) <= 2
    ax = plot_between(found).ax_
    values = ax.images[0].get_array().filled(np.nan)
    assert np.allclose(values, values.T, equal_nan=True)
    assert np.allclose(np.diag(values), 1)


def test_sign_errors_show_every_environment_and_chance(found):
    errors = found.sign_errors.query("axis == 'all' and measure == 'trace'")["error"]
    assert len(errors) > 10
    ax = plot_sign_errors(found, measures=["trace"]).ax_
    assert sorted(ax.collections[0].get_offsets()[:, 0]) == pytest.approx(sorted(errors))
    drawn = [float(line.get_xdata()[0]) for line in ax.lines if len(line.get_xdata()) == 1]
    wanted = [errors.mean(), errors.quantile(0.9), errors.max()]
    assert drawn == pytest.approx(wanted)
    assert any(list(line.get_xdata()) == [0.5, 0.5] for line in ax.lines)


def test_scans_are_whole_curves_by_radius_and_by_a_number_in_the_label(found):
    scans = {(scan.name, scan.parameter): scan.points for scan in scans_of(found)}
    assert [number for number, _ in scans["trace", "radius"]] == [0.01, 0.1, 1.0]
    assert [column for _, column in scans["renyi[power=2]", "alpha"]] == [
        "renyi[alpha=0.5,power=2]",
        "renyi[alpha=1.5,power=2]",
    ]
    assert len(scans) == 2
    axes = plot_scan_correlations(found).figure_.axes
    radii = next(ax for ax in axes if ax.get_xlabel() == "radius")
    assert list(radii.lines[1].get_ydata()) == [
        found.table.loc[f"trace@{radius:g}", "tau"] for radius in (0.01, 0.1, 1.0)
    ]
    assert radii.get_xscale() == "log"
    assert len(radii.collections) == 1  # the band


def test_coverage_counts_statuses_and_sorts_the_worst_first():
    ax = plot_coverage({"fine": {"ok": 9, "uncertain": 1}, "bad": {"ok": 2, "failed": 8}}).ax_
    assert labels(ax.yaxis) == ["bad", "fine"]
    assert [bar.get_width() for bar in ax.patches] == [2, 8, 9, 1]
    assert [text.get_text() for text in ax.texts] == ["2 of 10", "10 of 10"]
    with pytest.raises(ValueError, match="unknown status 'lost'"):
        plot_coverage({"fine": {"lost": 1}})


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    frame = population(2)[
        ["hp.lr", "hp.seed", "train_loss", "gap_accuracy", "trace", "reversed", HOSTILE, "constant"]
    ]
    found = landscape.correlate(frame, options=FAST)
    folder = tmp_path_factory.mktemp("report")
    page = write_correlation_report(
        found,
        folder,
        source={"name": HOSTILE, "command": "landscape sweep"},
        left_out=[(HOSTILE, "training: diverged")],
        descriptions={"trace": {"meaning": "Total <curvature>.", "formula": "tr H"}},
    )
    return found, folder, page


def test_the_page_is_drawn_from_the_json_and_escapes_every_name(written):
    _, folder, page = written
    html = page.read_text()
    assert render_correlation_report(json.loads((folder / "report.json").read_text())) == html
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert html.count("<script>") == 1  # sorting, allowed by its hash alone
    assert "script-src 'sha256-" in html
    assert not re.findall(r'(?:src|href)="(?!data:|#)', html)
    for uri in re.findall(r"data:image/svg\+xml;base64,([^\"]+)", html):
        assert b"<script" not in base64.b64decode(uri)


def test_the_report_keeps_signs_notes_methods_and_all_numbers(written):
    found, folder, page = written
    html = page.read_text()
    record = json.loads((folder / "report.json").read_text())
    again = Correlations.from_dict(record["correlations"])
    pd.testing.assert_frame_equal(
        again.table, found.table, check_dtype=False, check_index_type=False
    )
    table = pd.read_csv(folder / "table.csv", index_col=0)
    assert table.loc["reversed", "tau"] == found.table.loc["reversed", "tau"] < 0
    for note in found.notes:
        assert note in html.replace("&#39;", "'").replace("&#34;", '"')
    assert found.methods[:60] in html.replace("&#39;", "'")
    assert "training: diverged" in html
    assert "Total &lt;curvature&gt;." in html
    assert record["source"]["command"] == "landscape sweep"
    for word in ("best measure", "flat is good", "winner"):
        assert word not in html


def test_figures_are_kept_for_print(written):
    _, folder, _ = written
    kept = {path.name for path in (folder / "figures").iterdir()}
    assert {"forest.png", "forest.pdf", "scatters.png", "granulated.pdf", "between.png"} <= kept
    assert (folder / "figures" / "forest.pdf").read_bytes().startswith(b"%PDF")


def test_nothing_is_written_where_the_colour_is_unknown(written, tmp_path):
    with pytest.raises(ValueError, match="no column 'depth'"):
        write_correlation_report(written[0], tmp_path / "new", colour="depth")
    assert not (tmp_path / "new").exists()


def test_names_are_shortened_wrapped_and_never_hidden():
    assert names.short("x" * 200, 21) == "x" * 10 + "…" + "x" * 10
    assert names.short("_hidden").startswith(" ")
    assert names.lines("adaptive-sharpness[norm=l2]", 28) == "adaptive-sharpness\n[norm=l2]"
    assert names.two_digits(-0.001) == "0.00"
    assert names.two_digits(float("nan")) == "—"


def test_a_table_without_hyperparameters_and_source_has_a_report(tmp_path):
    frame = population(1)[["gap_accuracy", "trace"]]
    found = landscape.correlate(frame, options=FAST)
    html = write_correlation_report(found, tmp_path).read_text()
    kept = {path.stem for path in (tmp_path / "figures").iterdir()}
    assert kept == {"forest", "scatters"}
    assert "none given" in html
    with pytest.raises(ValueError, match="without hyper-parameters"):
        plot_granulated(found)
