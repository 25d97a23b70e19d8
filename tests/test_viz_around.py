"""The report's section of the loss around the checkpoint."""

import re

import pytest

from landscape.results import Cost, Estimate, Result, Table
from landscape.viz import render_report

DENSITY = {"grid": [0.0, 0.5, 1.0], "density": [1.0, 0.1, 0.5], "width": 0.05, "size": 100}


def exact(measure, value=1.0, config=None, **diagnostics):
    estimate = Estimate.exact(value, **diagnostics)
    return Result(measure=measure, estimate=estimate, cost=Cost(), config=config or {})


def page_of(*results):
    return render_report(Table(list(results)).to_dict())


def scan(parameter="rho", message=""):
    points = [{"at": at, "value": at, "stderr": at / 9, "interval": None} for at in (0.01, 0.1)]
    return {"parameter": parameter, "points": [*points, {"at": 1.0, "message": message}]}


def test_scans_have_a_section_between_table_and_spectrum():
    page = page_of(
        exact("max-sharpness", 1.0, scan=scan(message="too far")),
        exact("low-pass-sharpness", 1.0, scan=scan("sigma")),
        exact("noise-stability", 1.0, scan=scan("sigma"), regime="All scales agree."),
        exact("hessian-trace"),
        exact("hessian-spectral-density", **DENSITY),
    )
    order = [page.index(f'id="{section}"') for section in ("results", "around", "spectrum")]
    assert order == sorted(order)
    section = page.split('id="around"')[1].split("</section>")[0]
    assert section.count("<img") == 3
    text = " ".join(re.sub(r"<[^>]*>", "", section).split()).replace("&nbsp;", " ")
    for expected in (
        "lower bounds",
        "× max-sharpness at ρ = 1: too far",
        "All scales agree.",
        "interval of the trace from Hessian products",
    ):
        assert expected in text


def test_scans_say_only_what_is_shown():
    page = page_of(exact("average-sharpness", 1.0, scan=scan()))
    assert 'id="around"' in page
    assert "lower bounds" not in page
    assert "trace of the Hessian from forward passes" not in page
    page = page_of(exact("noise-stability", 1.0, scan=scan("sigma")))
    assert "from Hessian products" not in page
    assert "How far the loss rises" not in page
    assert 'id="around"' not in page_of(exact("a", 1.0))


@pytest.mark.parametrize(
    ("config", "compared"),
    [({}, True), ({"geometry": "elementwise"}, False), ({"norm": "linf"}, False)],
)
def test_only_isotropic_noise_is_compared_with_the_trace(config, compared):
    noise = exact("noise-stability", config=config, scan=scan("sigma"))
    page = page_of(noise, exact("hessian-trace[operator=ggn]", config={"operator": "ggn"}))
    assert "from Hessian products" not in page
    page = page_of(noise, exact("hessian-trace"))
    assert ("from Hessian products" in page) is compared
