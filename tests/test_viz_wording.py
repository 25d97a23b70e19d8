"""Numbers as text."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from landscape.results import format_estimate, format_interval
from landscape.viz import wording

NAN = math.nan


@pytest.mark.parametrize(
    ("value", "stderr", "half", "text"),
    [
        (8.9343, 0.1646, 0.389, "8.93 ± 0.16"),
        (0.96464, 0.001416, 0.0033, "0.9646 ± 0.0014"),
        (1.547949447, 7.38e-07, 7.38e-07, "1.547949 ± 7.4e-07"),
        (-6.1022, 0.00887, 0.31989, "-6.10 ± 0.32 (95 %)"),
        (13.608231852, 0.0, 0.0, "13.6082"),
        (0.0, 0.0, 0.0, "0"),
        (99.99, 0.0999, 0.2, "99.99 ± 0.10"),
        (123456.0, 789.0, 1500.0, "123460 ± 790"),
        (1.5e7, 2e5, 4e5, "(1.500 ± 0.020)e+07"),
        (3e-9, 1e-11, 2e-11, "(3.000 ± 0.010)e-09"),
        (-0.001, 0.5, 1.0, "0.00 ± 0.50"),
        (2.0, NAN, 1.0, "2.0 ± 1.0 (95 %)"),
        (2.0, 0.0, 1.0, "2.0 ± 1.0 (95 %)"),
        (2.0, 0.1, NAN, "2.00 ± 0.10"),
        (2.0, NAN, NAN, "2 ± ?"),
        (NAN, NAN, NAN, "—"),
        (math.inf, 0.0, NAN, "inf"),
    ],
)
def test_estimate(value, stderr, half, text):
    assert format_estimate(value, stderr, (value - half, value + half)) == text


def test_estimate_of_json_nulls():
    assert format_estimate(None, None, (None, None)) == "—"
    assert format_estimate(2.0, None) == "2 ± ?"


def test_estimate_of_an_interval_cut_at_a_bound_shows_the_longer_side():
    assert format_estimate(0.99, 0.001, (0.9, 1.0)) == "0.990 ± 0.090 (95 %)"


@pytest.mark.parametrize(
    ("ends", "text"),
    [
        ((8.545, 9.3236), "[8.54, 9.32]"),
        ((-0.0584733, -0.0584718), "[-0.05847330, -0.05847180]"),
        ((1.48e7, 1.52e7), "[1.480, 1.520]e+07"),
        ((2.0, 2.0), ""),
        ((None, None), ""),
        ((NAN, NAN), ""),
        ((0.0, math.inf), ""),
    ],
)
def test_interval(ends, text):
    assert format_interval(ends) == text


@given(
    st.floats(-1e12, 1e12).filter(lambda v: abs(v) > 1e-12),
    st.floats(1e-5, 10.0),
)
def test_estimate_reads_back_within_its_error(value, share):
    error = share * abs(value)
    text = format_estimate(value, error, (value - error, value + error))
    number, rest = text.removeprefix("(").split(" ± ")
    doubt, _, power = rest.partition(")")
    scale = float(f"1{power}") if power else 1.0
    assert float(number) * scale == pytest.approx(value, abs=0.06 * error)
    assert float(doubt) * scale == pytest.approx(error, rel=0.06)


@pytest.mark.parametrize(
    ("text", "printed"),
    [("-1.5", "−1.5"), ("7.4e-07", "7.4×10⁻⁷"), ("(1 ± 2)e+12", "(1 ± 2)×10¹²"), ("—", "—")],
)
def test_typeset(text, printed):
    assert wording.typeset(text) == printed


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 s"),
        (0.00028, "0.3 ms"),
        (0.05, "50 ms"),
        (0.21, "0.21 s"),
        (9.97, "10 s"),
        (34.3, "34 s"),
        (99.7, "1 min 40 s"),
        (119.7, "2 min 0 s"),
        (3725, "62 min 5 s"),
    ],
)
def test_seconds(number, text):
    assert wording.seconds(number) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "—"),
        ([], "—"),
        (True, "yes"),
        (["a", 1], "a, 1"),
        ({"hessian": "loop"}, "hessian: loop"),
        ("", ""),
    ],
)
def test_words(value, text):
    assert wording.words(value) == text


def test_counts_and_memory():
    assert wording.count(3658.0) == "3,658"
    assert wording.count(2.5) == "2.5"
    assert wording.count(None) == "—"
    assert wording.memory(None) == "—"
    assert wording.memory(512 * 2**20) == "512 MiB"
    assert wording.memory(3 * 2**30) == "3.0 GiB"
