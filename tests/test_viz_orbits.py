"""The picture and the section of a symmetry check: rows, ratios, edges, nulls, words."""

import copy
import itertools
import json
import math
import re

import numpy as np
import pytest
from matplotlib.figure import Figure

from landscape.results import Cost, Estimate, Result, Table
from landscape.viz import plot_orbits, render_report, style
from landscape.viz.display import svg
from landscape.viz.orbit_ranges import kinds_of, orbit_rows

KINDS = ("layer", "neuron", "norm", "attention", "loss", "permutation")
DEPENDS = "depends on the parametrisation"
EVIL = "<script>alert('x')</script>"


def point(value, half=0.0):
    ends = (None, None) if value is None else (value - half, value + half)
    return {"value": value, "low": ends[0], "high": ends[1], "status": "ok"}


def orbit(
    measure, here, points, *, verdict="moves", moved_by=(), invariances=(), logarithmic=False
):
    """An orbit as a check writes it, factors computed here once more and in another way."""
    factors = {}
    for kind, values in points.items():
        pairs = [(here, there) for there in values]
        if any(None in pair for pair in pairs):
            factors[kind] = None
        elif logarithmic:
            factors[kind] = max(math.exp(abs(a - b)) for a, b in pairs)
        elif any(a != b and a * b <= 0 for a, b in pairs):
            factors[kind] = None
        else:
            factors[kind] = max(1.0 if a == b else max(a / b, b / a) for a, b in pairs)
    same = [here, *(v for kind in points if kind != "loss" for v in points[kind])]
    known = [value for value in same if value is not None]
    return {
        "measure": measure,
        "base": point(here),
        "points": {kind: [point(value) for value in values] for kind, values in points.items()},
        "factors": factors,
        "moved_by": list(moved_by),
        "broken": [kind for kind in invariances if kind in moved_by],
        "range": [min(known), max(known)] if known else [None, None],
        "verdict": verdict,
        "invariances": list(invariances),
        "logarithmic": logarithmic,
    }


def check_of(*orbits, warnings=(), **found):
    kinds = [kind for kind in KINDS if any(kind in one["points"] for one in orbits)]
    return {
        "found": {kind: ["a → b"] for kind in kinds} | found,
        "changes": dict.fromkeys(kinds, 3.4e-7),
        "orbits": list(orbits),
        "settings": {"seed": 0, "elements": 2, "spread": 10.0},
        "warnings": list(warnings),
    }


def trace(**changes):
    points = {"layer": [60.0, 0.3], "loss": [30.0, 3.0], "permutation": [3.0, 3.003]}
    return orbit("hessian-trace", 3.0, points | changes, verdict=DEPENDS, moved_by=["layer"])


def steady(measure="train-loss"):
    return orbit(measure, 2.0, {"layer": [2.0, 2.0], "permutation": [2.0]}, verdict="unchanged")


def page_of(check, measures=("hessian-trace",), descriptions=None):
    records = [Result(measure=name, estimate=Estimate.exact(1.0), cost=Cost()) for name in measures]
    table = Table(records, extras={} if check is None else {"symmetry_check": check})
    return render_report(json.loads(json.dumps(table.to_dict())), descriptions)


def section_of(page):
    return page.split('<section id="symmetry">')[1].split("</section>")[0]


def told(page):
    return " ".join(re.sub(r"<[^>]*>", " ", section_of(page)).split())


def texts(ax):
    return [text.get_text() for text in ax.texts]


def drawn(ax, label):
    return [
        tuple(place)
        for line in ax.lines
        if line.get_label() == label
        for place in line.get_xydata()
    ]


def ranges(ax):
    found = [entry for entry in ax.collections if entry.get_label() == "_range"]
    return [tuple(entry.get_segments()[0][:, 0]) for entry in found]


def look_of(ax, name):
    (text,) = (text for text in ax.texts if text.get_text() == name)
    return text.get_weight(), text.get_color()


def test_dots_stand_at_the_ratios_in_rows_of_their_own():
    ax = plot_orbits(check_of(steady(), trace())).ax_
    layer = drawn(ax, "layer")
    np.testing.assert_allclose([x for x, _ in layer], [1.0, 1.0, 20.0, 0.1])
    assert [round(y) for _, y in layer] == [0, 0, 1, 1]
    permutation = drawn(ax, "permutation")
    np.testing.assert_allclose([x for x, _ in permutation], [1.0, 1.0, 1.001])
    assert {y for _, y in layer}.isdisjoint(y for _, y in permutation)  # none hides another
    np.testing.assert_allclose(ranges(ax), [(1.0, 1.0), (0.1, 20.0)])
    assert ax.get_xscale() == "log"
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first measure on top


def test_the_loss_is_no_parametrisation():
    ax = plot_orbits(check_of(trace(loss=[3000.0, 0.003]))).ax_
    assert not drawn(ax, "loss")
    assert ax.get_xlim()[1] < 1000
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["layer", "permutation"]


def test_the_band_is_an_order_of_magnitude_and_always_in_sight():
    ax = plot_orbits(check_of(steady())).ax_
    (band,) = (entry for entry in ax.patches if entry.get_label() == "_band")
    corners = band.get_extents().transformed(ax.transData.inverted())
    assert (corners.x0, corners.x1) == pytest.approx((0.1, 10.0))
    low, high = ax.get_xlim()
    assert low < 0.1
    assert high > 10
    assert drawn(ax, "_one")[0][0] == 1


def test_a_logarithm_is_drawn_by_its_difference():
    points = {"layer": [-4.0, -6.0]}
    moved = orbit("log", -5.0, points, moved_by=["layer"], logarithmic=True)
    ax = plot_orbits(check_of(moved)).ax_
    np.testing.assert_allclose([x for x, _ in drawn(ax, "layer")], [math.e, 1 / math.e])
    assert "×2.7" in texts(ax)


def test_a_logarithm_may_move_past_every_float():
    far = orbit("log", 0.0, {"layer": [600.0]}, moved_by=["layer"], logarithmic=True)
    far["factors"] = {"layer": 1e304}
    far["points"] = {"layer": [point(5000.0), point(-5000.0)]}
    ax = plot_orbits(check_of(far)).ax_
    low, high = ax.get_xlim()
    assert drawn(ax, "_left edge") == [(low, 0.0)]
    assert drawn(ax, "_right edge") == [(high, 0.0)]
    assert "×1·10³⁰⁴" in texts(ax)


@pytest.mark.parametrize(
    ("here", "there", "edge", "words"),
    [
        (-1.0, 2.0, "_right edge", "changes sign"),
        (1.0, None, "_right edge", "number lost"),
        (None, 1.0, "_right edge", "number gained"),
        (0.0, 1.0, "_right edge", "leaves zero"),
        (1.0, 0.0, "_left edge", "becomes zero"),
        (1.0, 1e9, "_right edge", "×1·10⁹"),
        (1.0, 1e-9, "_left edge", "×1·10⁹"),
        (1e-200, -1e-200, "_right edge", "changes sign"),
    ],
)
def test_what_no_axis_holds_is_marked_on_its_edge(here, there, edge, words):
    points = {"layer": [here, there]}
    check = check_of(orbit("a", here, points, verdict=DEPENDS, moved_by=["layer"]), steady("b"))
    ax = plot_orbits(check).ax_
    low, high = ax.get_xlim()
    marks = drawn(ax, edge)
    assert [x for x, _ in marks] == [low if edge == "_left edge" else high]
    assert [round(y) for _, y in marks] == [0]
    assert words in texts(ax)
    assert high < 100  # the other row keeps its room
    assert words in told(page_of(check))
    assert svg(ax.get_figure())


def test_tiny_values_of_one_sign_have_a_ratio():
    ax = plot_orbits(check_of(orbit("a", 1e-200, {"layer": [5e-200]}))).ax_
    np.testing.assert_allclose(drawn(ax, "layer"), [(5.0, 0.0)])


def test_zero_that_stays_is_unchanged():
    ax = plot_orbits(check_of(orbit("a", 0.0, {"layer": [0.0]}, verdict="unchanged"))).ax_
    assert drawn(ax, "layer") == [(1.0, 0.0)]


def test_a_measure_without_a_number_says_so():
    nothing = orbit("a", None, {"layer": [None, None]}, verdict="no number")
    check = check_of(nothing)
    ax = plot_orbits(check).ax_
    assert not drawn(ax, "layer")
    assert not drawn(ax, "_right edge")
    assert "no number" in texts(ax)
    page = page_of(check)
    assert "Without a number: 1 ." in told(page)
    assert not re.search(r"\b(nan|None|inf)\b", told(page))
    assert section_of(page).count("—") == 4  # value, lowest, highest, factor


def test_measures_that_depend_stand_out_and_unchanged_ones_are_calm():
    small = orbit("small", 1.0, {"layer": [1.018]}, moved_by=["layer"])
    ax = plot_orbits(check_of(steady(), trace(), small)).ax_
    looks = {name: look_of(ax, name) for name in ("train-loss", "hessian-trace", "small")}
    assert looks["hessian-trace"][0] == "bold"
    assert looks["small"] == ("normal", looks["hessian-trace"][1])
    assert looks["train-loss"][0] == "normal"
    assert looks["train-loss"][1] != looks["small"][1]
    assert "×20" in texts(ax)
    assert "×1.018" in texts(ax)  # small, but more than chance


def test_factors_count_where_they_are_more_than_chance_only():
    noisy = orbit("a", 1.0, {"layer": [3.0], "neuron": [2.0]}, moved_by=["neuron"])
    (rows,) = orbit_rows(check_of(noisy)).values()
    assert rows[0].worst == "×2"


def test_rows_stand_under_headings_variants_together():
    names = ("x[k=1]", "y", "x[k=2]", "z")
    check = check_of(*map(steady, names))
    ax = plot_orbits(check, headings={"x": "Spectrum", "y": "Noise"}).ax_
    own = [text for text in texts(ax) if text not in ("within ×10", "moves by", "")]
    assert own == ["Spectrum", "x, k=1", "k=2", "Noise", "y", "Other", "z"]
    heights = [text.xy[1] for text in ax.texts if text.get_text() in own]
    assert heights == sorted(heights)
    assert [text for text in texts(plot_orbits(check).ax_) if text in own] == [
        "x, k=1",
        "k=2",
        "y",
        "z",
    ]


@pytest.mark.parametrize("count", [1, 3, 45])
def test_labels_are_readable_whatever_the_number_of_rows(count):
    name = "adaptive-sharpness[norm=linf,logit_normalisation=True]"
    rows = [orbit(f"{i}-{name}", 1.0, {"layer": [900.0]}, moved_by=["layer"]) for i in range(count)]
    figure = plot_orbits(check_of(*rows)).figure_
    figure.draw_without_rendering()
    (ax,) = figure.axes
    boxes = [text.get_window_extent() for text in ax.texts if text.get_text().endswith("True")]
    assert len(boxes) == count
    for above, below in itertools.pairwise(boxes):
        assert above.y0 > below.y1
    whole = figure.bbox
    legend = ax.get_legend().get_window_extent()
    for box in [*boxes, legend, ax.xaxis.label.get_window_extent()]:
        assert whole.x0 <= box.x0
        assert box.x1 <= whole.x1
        assert whole.y0 <= box.y0
        assert box.y1 <= whole.y1 + 1
    assert ax.get_window_extent().width > 0.4 * whole.width


def test_one_kind_and_unknown_kinds_are_drawn():
    check = check_of(orbit("a", 1.0, {"layer": [2.0]}))
    check["found"]["new"] = ["somewhere"]
    check["orbits"][0]["points"]["new"] = [point(4.0)]
    check["orbits"][0]["factors"]["new"] = 4.0
    assert kinds_of(check) == ["layer", "new"]
    ax = plot_orbits(check).ax_
    assert [x for x, _ in drawn(ax, "new")] == [4.0]
    assert "new" in told(page_of(check))


def test_kinds_stand_in_one_order_and_the_loss_last():
    points = {kind: [1.0] for kind in KINDS}
    page = page_of(check_of(orbit("a", 1.0, points, verdict="unchanged")))
    heads = re.findall(r'<th class="num">(\w+)</th>', section_of(page))
    assert heads == ["layer", "neuron", "norm", "attention", "permutation", "loss"]


def test_names_are_no_formulas():
    names = ("a$_{[x=$^]", "b$^$")
    assert svg(plot_orbits(check_of(*map(steady, names)), headings={"b$^$": "$_{$"}).figure_)


def test_nothing_to_draw_is_said():
    with pytest.raises(ValueError, match="holds no measure"):
        plot_orbits(check_of(layer=["a"]))
    with pytest.raises(ValueError, match="no change of the weights"):
        plot_orbits(check_of(orbit("a", 1.0, {"loss": [2.0]})))


def test_draws_on_given_axes_the_same_bytes_and_changes_nothing():
    check = check_of(steady(), trace())
    before = copy.deepcopy(check)
    ax = Figure().add_subplot()
    assert plot_orbits(check, ax).ax_ is ax
    with style():
        assert svg(plot_orbits(check).figure_) == svg(plot_orbits(check).figure_)
    assert check == before


def test_section_tells_what_was_done_and_found():
    small = orbit("small", 2.0, {"layer": [3.0], "permutation": [2.0]}, moved_by=["layer"])
    check = check_of(trace(), small, steady(), warnings=["attn: heads share a key"])
    check["found"]["layer"] = [f"block{i} → block{i + 1}" for i in range(10)]
    page = page_of(check)
    words = told(page)
    for expected in (
        "2 random copies of the checkpoint",
        "factors up to 10",
        "3.4×10⁻⁷",
        "block5 → block6 and 4 more",
        "stays: 1 of 3",
        "less: 1 .",
        "chance: 1 .",
        "attn: heads share a key",
        "another function",
    ):
        assert expected in words
    assert section_of(page).count('src="data:image/svg+xml;base64,') == 1


def test_table_holds_value_range_factors_and_verdict():
    section = section_of(page_of(check_of(trace(), steady())))
    rows = [
        re.sub(r"<[^>]*>", "", cells.replace("</td>", "|")).replace("\n", "").split("|")[:-1]
        for cells in re.findall(r"<tr>\n<td><span class=\"mono\">.*?</tr>", section, re.DOTALL)
    ]
    assert rows == [
        ["hessian-trace", "depends", "3", "0.3", "60", "×20", "1", "×10"],
        ["train-loss", "unchanged", "2", "2", "2", "1", "1", "—"],
    ]
    assert f'class="status bad" title="{DEPENDS}"' in section
    assert section.count("factor moved") == 1


def test_broken_declarations_are_noted():
    broken = orbit("a", 1.0, {"layer": [5.0]}, moved_by=["layer"], invariances=["layer", "norm"])
    page = page_of(check_of(broken))
    assert "a is said to be unchanged by layer, and moves" in told(page)
    assert "<sup>!</sup>" in section_of(page)
    kept = orbit("a", 1.0, {"layer": [1.0]}, verdict="unchanged", invariances=["layer"])
    assert "Declared invariances" not in told(page_of(check_of(kept)))


def test_section_without_any_symmetry_says_so():
    words = told(page_of(check_of(orbit("a", 1.0, {"loss": [2.0]}), warnings=["b: why"])))
    assert "No change of the weights that keeps the function was found" in words
    assert "unchanged" not in words
    assert "b: why" in words


@pytest.mark.parametrize("check", [None, check_of(layer=["a"])], ids=["no check", "no measure"])
def test_no_check_no_section(check):
    assert 'id="symmetry"' not in page_of(check)


def test_headings_are_those_of_the_descriptions():
    about = dict.fromkeys(("meaning", "formula", "source", "cost_class", "invariances"), "")
    # The check may hold measures that the table does not.
    descriptions = {"train-loss": about | {"group": "Baselines"}}
    section = section_of(page_of(check_of(trace(), steady()), descriptions=descriptions))
    assert re.findall(r'scope="rowgroup">([^<]*)<', section) == ["Baselines", "Other"]


def test_everything_is_escaped():
    evil = orbit(f"{EVIL}[a={EVIL}]", 1.0, {EVIL: [5.0]}, moved_by=[EVIL], invariances=[EVIL])
    check = check_of(evil | {"verdict": EVIL}, warnings=[EVIL], **{EVIL: [EVIL]})
    page = page_of(check)
    assert "<script" not in page
    assert "alert('x')" not in page
