"""The table of measures: groups, their order, footnotes, the index."""

import re

import pytest

from landscape.results import Cost, Estimate, Result, Status, Table
from landscape.viz import render_report

ABOUT = dict.fromkeys(("meaning", "formula", "source", "cost_class", "invariances"), "")


def exact(measure, value=1.0, config=None, **diagnostics):
    estimate = Estimate.exact(value, **diagnostics)
    return Result(measure=measure, estimate=estimate, cost=Cost(), config=config or {})


def page_of(*results, descriptions=None):
    return render_report(Table(list(results)).to_dict(), descriptions)


def about_groups(**groups):
    return {name: ABOUT | {"group": group} for name, group in groups.items()}


def headings(page):
    return re.findall(r'<th colspan="6" scope="rowgroup">([^<]*)</th>', page)


def names(page):
    return re.findall(r"<h3>([^<]*)</h3>", page)


def test_groups_stand_together_in_order_of_first_appearance():
    page = page_of(
        exact("a", 1.0),
        exact("x", 1.0),
        exact("b[k=1]", 1.0),
        exact("c", 1.0),
        exact("a2", 1.0),
        exact("b[k=2]", 2.0),
        descriptions=about_groups(a="Noise", a2="Noise", b="Spectrum", c="Noise"),
    )
    assert headings(page) == ["Noise", "Spectrum", "Other"]
    assert names(page) == ["a", "c", "a2", "b", "x"]
    assert page.index('data-measure="b[k=2]"') < page.index('data-measure="x"')


def test_a_named_group_called_other_is_the_same():
    page = page_of(
        exact("x", 1.0),
        exact("a", 1.0),
        exact("b", 1.0),
        descriptions=about_groups(a="Other", b="Noise"),
    )
    assert headings(page) == ["Noise", "Other"]
    assert names(page) == ["b", "a", "x"]


@pytest.mark.parametrize("descriptions", [{}, {"a": ABOUT}, {"a": ABOUT | {"group": ""}}])
def test_without_groups_there_are_no_headings(descriptions):
    page = page_of(exact("a", 1.0), exact("b", 1.0), descriptions=descriptions)
    assert headings(page) == []
    assert names(page) == ["a", "b"]


def test_footnote_marks_follow_the_order_of_the_table():
    rests_on = {"late": "x", "late[a=1]": "x", "early": "y", "early[a=1]": "y", "first": "alone"}
    rows = {
        name: Result(
            measure=name, estimate=Estimate.exact(1.0), cost=Cost(), evidence={key: Cost()}
        )
        for name, key in rests_on.items()
    }
    page = page_of(
        rows["first"],
        rows["late"],
        rows["late[a=1]"],
        rows["early"],
        rows["early[a=1]"],
        descriptions=about_groups(first="A", early="A", late="B"),
    )
    assert re.findall(r"<sup>([a-z])</sup>", page) == [*"aaaa", *"bbbb", *"ab"]


def test_long_tables_have_an_index():
    few = page_of(exact("a", 1.0))
    assert 'class="index"' not in few
    rows = [exact(f"m{i}", 1.0) for i in range(12)]
    page = page_of(
        *rows,
        exact("m0[k=2]", 1.0),
        Result(measure="m12", estimate=Estimate.without_value(Status.DECLINED, ""), cost=Cost()),
        descriptions={"m3": ABOUT | {"group": "Noise"}},
    )
    links = re.findall(r'<a href="#([^"]*)">([^<]*)</a>', page)
    assert [name for _, name in links] == names(page)
    for anchor, name in links:
        assert f'<tbody id="{anchor}">' in page
        assert names(page.split(f'<tbody id="{anchor}">')[1])[0] == name
    index = page.split('class="index"')[1].split("</nav>")[0]
    assert ">m0</a> <span" in index  # two rows
    assert index.count('title="declined"') == 1
