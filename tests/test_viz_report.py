"""The report: complete, self-contained, escaped, and the same numbers as report.json."""

import json
import math
import re

import pytest

from landscape.results import Cost, Estimate, Result, Status, Table
from landscape.viz import render_report, sections, write_report
from landscape.viz.report import formula

SHARED = {"spectrum-1": Cost(products=40, seconds=2.0, peak_memory=2**20)}
ABOUT = {
    "meaning": "What it says.",
    "formula": "λ_max(H)^2 < 1",
    "source": "Somebody 2020",
    "cost_class": "medium",
    "invariances": "permutation",
}
EVIL = "<script>alert('x')</script>"


def result(measure, value=8.9343, stderr=0.1646, half=0.389, **changes):
    diagnostics = changes.pop("diagnostics", {})
    estimate = Estimate(
        value=value, stderr=stderr, interval=(value - half, value + half), diagnostics=diagnostics
    )
    fields = {"cost": Cost(products=40, seconds=2.5), "evidence": SHARED} | changes
    return Result(measure=measure, estimate=estimate, **fields)


def without_value(measure, status, message=""):
    return Result(measure=measure, estimate=Estimate.without_value(status, message), cost=Cost())


def exact(measure, value, **diagnostics):
    return Result(measure=measure, estimate=Estimate.exact(value, **diagnostics), cost=Cost())


def density():
    grid = [i / 50 - 0.5 for i in range(100)]
    return {
        "grid": grid,
        "density": [math.exp(-50 * x * x) + 1e-3 for x in grid],
        "density_low": [math.exp(-60 * x * x) for x in grid],
        "density_high": [math.exp(-40 * x * x) + 2e-3 for x in grid],
        "width": 0.05,
        "eigenvalues": [-0.2, 1.0],
        "size": 100,
    }


def full_table():
    layers = {"conv": {"value": 1.0, "stderr": 0.1, "interval": [0.8, 1.2], "size": 4}}
    return Table(
        [
            exact("parameter-norm", 13.6082318, layers={"conv": {"value": 2.0}}),
            result("hessian-top-eigenvalue", 1.547949447, 7.4e-07, 7.4e-07),
            result("hessian-trace", diagnostics={"layers": layers}),
            result("hessian-spectral-density", 0.96, 0.001, 0.002, diagnostics=density()),
            result("renyi-sharpness[alpha=0.5]", -6.1022, 0.0089, 0.32),
            result("renyi-sharpness[alpha=2]", -3.31, 0.02, 0.05),
        ],
        provenance={"size": 3658, "terms": 1000, "device": "cpu", "dtype": "float32", "seed": 0},
        extras={
            "task": {
                "name": "digits",
                "checkpoint": "/somewhere/net.safetensors",
                "train_loss": 0.0067,
                "test_loss": 0.1233,
                "train_accuracy": 0.999,
                "test_accuracy": 0.9686,
            }
        },
    )


def page_of(*results, descriptions=None, **fields):
    return render_report(Table(list(results), **fields).to_dict(), descriptions)


def without_markup(page):
    return " ".join(re.sub(r"<[^>]*>", "", page).split())


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "new" / "folder"
    path = write_report(full_table(), folder, {"hessian-trace": ABOUT, "unrelated": ABOUT})
    return folder, path


def test_writes_three_files_and_returns_the_page(written):
    folder, path = written
    assert path == folder / "report.html"
    assert sorted(entry.name for entry in folder.iterdir()) == [
        "report.html",
        "report.json",
        "results.csv",
    ]


def test_page_is_rendered_from_the_json_alone(written):
    folder, path = written
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert report["extras"]["descriptions"] == {"hessian-trace": ABOUT}
    assert render_report(report) == path.read_text(encoding="utf-8")


def test_values_are_those_of_the_json(written):
    folder, path = written
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    cells = re.findall(
        r'data-measure="([^"]*)" data-value="([^"]*)"', path.read_text(encoding="utf-8")
    )
    assert {name: json.loads(value) for name, value in cells} == {
        record["measure"]: record["value"] for record in report["results"]
    }


def test_csv_holds_the_values(written):
    import pandas as pd

    folder, _ = written
    frame = pd.read_csv(folder / "results.csv", index_col="measure")
    assert frame.loc["hessian-trace", "value"] == 8.9343


def test_table_is_not_changed(tmp_path):
    table = full_table()
    before = json.dumps(table.to_dict())
    write_report(table, tmp_path, {"hessian-trace": ABOUT})
    assert json.dumps(table.to_dict()) == before


def test_page_loads_nothing(written):
    page = written[1].read_text(encoding="utf-8")
    addresses = re.findall(r"(?:src|href)\s*=\s*[\"']([^\"']*)", page)
    assert addresses
    own = ("data:image/svg+xml;base64,", "#")
    assert all(address.startswith(own) for address in addresses)
    assert not re.search(r"@import|url\(|<script|<link|<iframe|https?://", page)


def test_numbers_are_rounded_to_their_error(written):
    text = without_markup(written[1].read_text(encoding="utf-8"))
    for expected in (
        "8.93 ± 0.16",
        "[8.55, 9.32]",
        "13.6082",
        "1.547949 ± 7.4×10⁻⁷",
        "−6.10 ± 0.32 (95 %)",
    ):
        assert expected in text


def test_summary_names_checkpoint_task_and_gap(written):
    text = without_markup(written[1].read_text(encoding="utf-8"))
    for expected in ("net.safetensors", "digits", "3,658", "99.90 %", "96.86 %", "3.04 %"):
        assert expected in text
    assert "/somewhere/net.safetensors" in text  # in the provenance


def test_shared_evidence_is_told_once(written):
    page = written[1].read_text(encoding="utf-8")
    assert "computed once and shared by 5 rows" in without_markup(page)
    assert len(re.findall(r"<sup>a</sup>", page)) == 11  # passes and time of five rows, one note


def test_variants_share_one_description():
    page = page_of(
        result("renyi-sharpness[alpha=0.5]"),
        result("renyi-sharpness[alpha=2]"),
        descriptions={"renyi-sharpness": ABOUT},
    )
    assert page.count("What it says.") == 1
    assert 'rowspan="4"' in page  # settings and value, twice
    assert "alpha=0.5" in page


def test_formula_has_indices_and_is_escaped():
    page = page_of(result("hessian-trace"), descriptions={"hessian-trace": ABOUT})
    assert "λ<sub>max</sub>(H)<sup>2</sup> &lt; 1" in page


POINT = {"points": [{"at": 0.1, "value": 1.0}]}
EVIL_ROW = {"ours": None, "low": None, "high": None, "peer_value": None, "inside": None} | (
    dict.fromkeys(("quantity", "peer", "note"), EVIL)
)


@pytest.mark.parametrize(
    ("evil", "fields"),
    [
        (result(EVIL), {}),
        (result(f"a[{EVIL}]"), {}),
        (result("a"), {"warnings": [EVIL]}),
        (result("a"), {"provenance": {EVIL: [EVIL]}}),
        (result("a"), {"extras": {"task": {"name": EVIL, "checkpoint": f"x/{EVIL}"}}}),
        (without_value("a", Status.FAILED, EVIL), {}),
        (result("a"), {"descriptions": {"a": dict.fromkeys(ABOUT, EVIL)}}),
        (result("a", evidence={EVIL: Cost()}), {}),
        (exact("a", 1.0, layers={EVIL: {"value": 1.0}}), {}),
        (result("a"), {"descriptions": {"a": ABOUT | {"group": EVIL}}}),
        (exact("a", 1.0, scan={"points": [{"at": 1.0, "message": EVIL}]}), {}),
        (exact(EVIL, 1.0, scan={"points": [{"at": 1.0, "value": 1.0}, {"at": 2.0}]}), {}),
        (exact("noise-stability", 1.0, regime=EVIL, scan={"parameter": "sigma"} | POINT), {}),
        (result("a"), {"extras": {"cross_check": [EVIL_ROW]}}),
    ],
    ids=[
        "name",
        "settings",
        "warning",
        "provenance",
        "task",
        "message",
        "description",
        "evidence",
        "layer",
        "group",
        "scan message",
        "scan name",
        "regime",
        "cross-check",
    ],
)
def test_everything_is_escaped(evil, fields):
    page = page_of(evil, **fields)
    assert "<script" not in page
    assert "alert('x')" not in page


@pytest.mark.parametrize(
    "status", [status for status in Status if not status.measured], ids=lambda s: s.value
)
def test_a_measure_without_value_says_why(status):
    page = page_of(without_value("hessian-trace", status, "because of this"))
    assert 'data-value="null"' in page
    assert ">—</td>" in page
    assert f">{status.value}</span>" in page
    assert "because of this" in page
    assert "nan" not in without_markup(page).lower().split()


def test_single_exact_measure_without_anything_else():
    page = page_of(exact("parameter-norm", 2.0))
    for absent in ("spectrum", "layers", "cross-check", "warnings", "provenance"):
        assert f'id="{absent}"' not in page
    assert "exact" in page


def test_sections_appear_with_their_contents():
    table = full_table()
    table.warnings.append("Mind the gap")
    table.extras["cross_check"] = [
        {
            "quantity": "hessian-trace",
            "ours": 8.9343,
            "low": 8.55,
            "high": 9.32,
            "peer": "PyHessian",
            "peer_value": 7.4,
            "peer_error": 0.3,
            "inside": False,
            "note": "Hutchinson",
        }
    ]
    page = render_report(table.to_dict())
    for present in ("spectrum", "layers", "cross-check", "warnings", "provenance", "cost"):
        assert f'id="{present}"' in page
    text = without_markup(page)
    for expected in ("Mind the gap", "8.93 ± 0.39", "7.40 ± 0.30", "differs", "PyHessian"):
        assert expected in text


@pytest.mark.parametrize(("inside", "word"), [(True, "agrees"), (False, "differs")])
def test_cross_check_without_peer_error(inside, word):
    row = {"quantity": "a", "ours": 2.0, "low": 2.0, "high": 2.0, "peer": "P", "note": ""}
    page = page_of(
        exact("a", 2.0), extras={"cross_check": [{**row, "peer_value": 2.1, "inside": inside}]}
    )
    assert f">{word}</span>" in page
    assert "2.1 ± ?" in page


def test_nothing_measured_is_refused(tmp_path):
    with pytest.raises(ValueError, match="an audit that measured nothing"):
        render_report(Table([]).to_dict())
    with pytest.raises(ValueError, match="an audit that measured nothing"):
        write_report(Table([]), tmp_path, {})
    assert list(tmp_path.iterdir()) == []


def test_cost_rows_add_up_to_the_total():
    report = full_table().to_dict()
    rows = sections.evidence(report)
    assert sum(row["products"] for row in rows) == report["cost"]["products"] == 40
    assert sum(row["seconds"] for row in rows) == pytest.approx(report["cost"]["seconds"])


def test_failed_results_make_no_headline():
    records = Table([without_value("hessian-trace", Status.FAILED), exact("a", 1.0)]).to_dict()
    assert [tile["name"] for tile in sections.headlines(records["results"])] == ["a"]


def test_headlines_of_several_variants_keep_their_settings():
    records = Table([result("hessian-trace[operator=ggn]")]).to_dict()["results"]
    assert sections.headlines(records)[0]["name"] == "hessian-trace[operator=ggn]"


def test_formula_with_braces():
    assert str(formula("max_{‖δ‖<ρ} a_i^{2k}")) == (
        "max<sub>‖δ‖&lt;ρ</sub> a<sub>i</sub><sup>2k</sup>"
    )


def test_slices_have_a_section_of_their_own():
    import numpy as np
    import xarray as xr

    from landscape.slices.overview import to_record

    axis = np.linspace(-1, 1, 9)
    plane = axis[:, None] ** 2 + axis[None] ** 2 + 0.1
    coordinates = {
        name: (name, axis, {"label": f"direction {name}", "units": ""})
        for name in ("alpha", "beta")
    }
    attributes = {"error_estimate": '{"train_loss": 0.001}', "directions": "[]", "tolerance": 0.01}
    dataset = xr.Dataset(
        {
            "train_loss": (("alpha", "beta"), plane),
            "evaluated": (("alpha", "beta"), plane > 0.5),
        },
        coordinates,
        attributes,
    )
    given = full_table().to_dict()
    without = render_report(given)
    assert "Slices of the landscape" not in without
    given["extras"]["slices"] = {"plane": to_record(dataset)}
    page = render_report(given)
    assert "Slices of the landscape" in page
    assert f"{int((plane > 0.5).sum())} of 81 points were evaluated" in page


def test_the_edge_of_stability_stands_beside_the_largest_eigenvalue():
    table = full_table()
    table.extras["task"] = {"name": "net", "checkpoint": "last.pt", "stability_edge": 40.0}
    told = dict(sections.facts(table.to_dict()))["Edge of stability"]
    assert told == "40; largest eigenvalue at 3.9 %"
    assert told in render_report(table.to_dict(), {})
    table.extras["task"]["stability_edge"] = None
    assert "Edge of stability" not in dict(sections.facts(table.to_dict()))
