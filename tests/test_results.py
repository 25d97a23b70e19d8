"""Results on their own: cost, status, round trips, records on disk."""

import json
import math

import pytest
import torch

from landscape.results import (
    Cost,
    Estimate,
    Meter,
    Result,
    Status,
    Store,
    Table,
    content_hash,
    environment,
    to_json,
    write_atomically,
)


def result(name="m", value=1.5, **changes):
    fields = {
        "estimate": Estimate(value=value, stderr=0.25, interval=(value - 0.5, value + 0.5)),
        "cost": Cost(products=3.0, seconds=0.5, peak_memory=10),
        "config": {"alpha": 0.5},
        "seed": 7,
        "provenance": {"weights": "abc"},
    }
    return Result(measure=name, **{**fields, **changes})


# -- cost -----------------------------------------------------------------------------------------


def test_costs_add():
    total = Cost(forwards=1, gradients=2, products=3, seconds=0.5, peak_memory=10) + Cost(
        forwards=10, products=30, seconds=1, peak_memory=7
    )
    expected = Cost(forwards=11, gradients=2, products=33, seconds=1.5, peak_memory=10)
    assert total == expected
    assert total.passes == 46


@pytest.mark.parametrize(
    ("one", "two", "both"), [(None, None, None), (5, None, 5), (None, 5, 5), (0, 5, 5)]
)
def test_the_peak_of_a_sum_is_the_larger_one(one, two, both):
    assert (Cost(peak_memory=one) + Cost(peak_memory=two)).peak_memory == both


def test_a_meter_counts_a_block():
    meter = Meter(torch.device("cpu"))
    meter.count(products=5)
    with meter.block() as cost:
        meter.count(forwards=1, gradients=2)
        meter.count(products=4)
    meter.count(products=8)
    assert (cost.forwards, cost.gradients, cost.products) == (1, 2, 4)
    assert 0 <= cost.seconds < 5
    assert cost.peak_memory > 1 << 20


def test_nested_blocks_count_what_is_inside_each():
    meter = Meter(torch.device("cpu"))
    with meter.block() as outer:
        meter.count(products=1)
        with meter.block() as inner:
            meter.count(products=2)
        meter.count(products=4)
    assert inner.products == 2
    assert outer.products == 7
    assert outer.seconds >= inner.seconds


def test_a_block_is_filled_in_after_an_exception():
    meter, costs = Meter(torch.device("cpu")), []

    def interrupted():
        with meter.block() as cost:
            costs.append(cost)
            meter.count(gradients=3)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert costs[0].gradients == 3
    assert costs[0].peak_memory
    with meter.block() as after:
        pass
    assert after.passes == 0


def test_listeners_hear_the_passes_of_their_block():
    meter, heard = Meter(torch.device("cpu")), []
    with meter.listen(heard.append):
        meter.count(forwards=1, products=2)
        meter.count(gradients=1)
    meter.count(products=5)
    assert heard == [3, 1]
    with pytest.raises(RuntimeError), meter.listen(heard.append):
        raise RuntimeError
    meter.count(products=5)
    assert heard == [3, 1]


# -- estimate and status --------------------------------------------------------------------------


def test_an_exact_estimate():
    estimate = Estimate.exact(2.5, layers={"a": 1})
    assert (estimate.value, estimate.stderr, estimate.interval) == (2.5, 0.0, (2.5, 2.5))
    assert estimate.status is Status.OK
    assert estimate.diagnostics == {"layers": {"a": 1}}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_undefined(value):
    estimate = Estimate.exact(value)
    assert estimate.status is Status.UNDEFINED
    assert math.isnan(estimate.value)
    assert str(value) in estimate.message


def test_each_status_but_ok_has_an_advice():
    for status in Status:
        assert bool(status.advice) == (status is not Status.OK)
    assert [status for status in Status if status.measured] == [
        Status.OK,
        Status.NOT_CONVERGED,
        Status.UNCERTAIN,
    ]


def test_a_message_falls_back_to_the_advice():
    assert result().message == ""
    uncertain = Estimate(value=1.0, stderr=1.0, interval=(0.0, 2.0), status=Status.UNCERTAIN)
    assert result(estimate=uncertain).message == Status.UNCERTAIN.advice
    declined = Estimate.without_value(Status.DECLINED, "no outputs")
    assert result(estimate=declined).message == "no outputs"


# -- round trips ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "estimate",
    [
        Estimate(value=1.0, stderr=0.1, interval=(0.5, 1.5), diagnostics={"layers": {"a": [1.0]}}),
        Estimate(value=1.0, stderr=3.0, interval=(-5.0, 7.0), status=Status.UNCERTAIN),
        Estimate(
            value=1.0, stderr=3.0, interval=(-5.0, 7.0), status=Status.NOT_CONVERGED, message="odd"
        ),
    ],
    ids=["ok", "uncertain", "message"],
)
def test_a_result_comes_back_from_json(estimate):
    before = result(estimate=estimate, evidence={"spectrum-1": Cost(products=2.0)})
    after = Result.from_dict(json.loads(to_json(before.to_dict())))
    assert after == before
    assert after.to_dict() == before.to_dict()


def test_what_is_not_finite_becomes_null_and_comes_back_as_nan():
    before = result(
        estimate=Estimate.without_value(Status.UNDEFINED, "zero", curve=[1.0, math.inf, math.nan])
    )
    record = json.loads(to_json(before.to_dict()))
    assert record["value"] is record["stderr"] is None
    assert record["interval"] == [None, None]
    assert record["status"] == "undefined"
    assert record["diagnostics"]["curve"] == [1.0, None, None]
    after = Result.from_dict(record)
    assert math.isnan(after.value)
    assert math.isnan(after.stderr)
    assert all(math.isnan(end) for end in after.interval)
    assert (after.status, after.message) == (Status.UNDEFINED, "zero")
    assert after.to_dict() == before.to_dict()


def test_json_is_strict():
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json({"value": math.nan})


# -- table ----------------------------------------------------------------------------------------


def shared_table():
    spectrum = Cost(products=300.0, seconds=6.0, peak_memory=100)
    own = Cost(forwards=1.0, seconds=0.5, peak_memory=120)
    return Table(
        [
            result("trace", cost=spectrum, evidence={"spectrum-1": spectrum}),
            result("top", cost=spectrum + own, evidence={"spectrum-1": spectrum}),
            result("loss", cost=own),
            result("nothing", estimate=Estimate.without_value(Status.DECLINED, "no outputs")),
        ],
        provenance={"weights": "abc"},
        warnings=["careful"],
        extras={"metrics": {"accuracy": 0.9}},
    )


def test_shared_evidence_is_counted_once():
    total = shared_table().cost
    assert total.products == 300 + 3
    assert total.forwards == 2
    assert total.seconds == pytest.approx(6 + 0.5 + 0.5 + 0.5)
    assert total.peak_memory == 120
    assert list(shared_table().evidence) == ["spectrum-1"]


def test_a_table_is_read_by_name():
    table = shared_table()
    assert table["top"].measure == "top"
    assert "top" in table
    assert "bottom" not in table
    assert len(table) == 4
    assert [row.measure for row in table] == ["trace", "top", "loss", "nothing"]
    with pytest.raises(KeyError, match=r"no result named 'bottom'; the table holds \['trace'"):
        table["bottom"]


def test_a_frame_has_a_row_a_measure():
    frame = shared_table().to_frame()
    assert list(frame.index) == ["trace", "top", "loss", "nothing"]
    assert frame.loc["trace", "value"] == 1.5
    assert (frame.loc["trace", "low"], frame.loc["trace", "high"]) == (1.0, 2.0)
    assert frame.loc["top", "products"] == 300
    assert frame.loc["nothing", "status"] == "declined"
    assert frame.loc["nothing", "message"] == "no outputs"
    assert math.isnan(frame.loc["nothing", "value"])
    assert frame.loc["trace", "evidence"] == "spectrum-1"


def test_an_empty_table():
    table = Table([])
    assert len(table) == 0
    assert table.to_frame().empty
    assert table.cost == Cost()


def test_a_table_comes_back_from_json():
    before = shared_table()
    record = json.loads(to_json(before.to_dict()))
    after = Table.from_dict(record)
    assert after.to_dict() == before.to_dict()
    assert after.provenance == {"weights": "abc"}
    assert after.warnings == ["careful"]
    assert after.extras == {"metrics": {"accuracy": 0.9}}
    assert after.cost == before.cost


# -- store ----------------------------------------------------------------------------------------


def test_a_stored_result_is_found_again(tmp_path):
    store = Store(tmp_path / "records")
    assert store.load("m", "key") is None
    path = store.save("m", "key", result())
    assert path == tmp_path / "records" / "m-key.json"
    assert store.load("m", "key") == result()
    assert store.load("m", "other") is None
    assert store.load("n", "key") is None
    assert [file.name for file in path.parent.iterdir()] == ["m-key.json"]


def test_a_store_can_be_told_to_measure_again(tmp_path):
    Store(tmp_path).save("m", "key", result())
    assert Store(tmp_path, reuse=False).load("m", "key") is None


def test_the_key_depends_on_everything_that_changes_a_number():
    identity = {"weights": "a", "data": "b", "objective": "mse", "batch_norm": "eval"}
    keys = {
        Store.key(identity, "m", {"alpha": 0.5}, 0),
        Store.key({**identity, "weights": "c"}, "m", {"alpha": 0.5}, 0),
        Store.key({**identity, "data": "c"}, "m", {"alpha": 0.5}, 0),
        Store.key({**identity, "batch_norm": "batch"}, "m", {"alpha": 0.5}, 0),
        Store.key(identity, "n", {"alpha": 0.5}, 0),
        Store.key(identity, "m", {"alpha": 0.6}, 0),
        Store.key(identity, "m", {"alpha": math.inf}, 0),
        Store.key(identity, "m", {"alpha": 0.5}, 1),
    }
    assert len(keys) == 8
    # The order of a dictionary does not.
    turned = dict(reversed(identity.items()))
    assert Store.key(turned, "m", {"a": 1, "b": 2}, 0) == Store.key(
        identity, "m", {"b": 2, "a": 1}, 0
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[]",
        "3",
        "{}",
        '{"measure": "m"}',
        to_json(result().to_dict())[:-40],
        to_json({**result().to_dict(), "status": "excellent"}),
        to_json({**result().to_dict(), "interval": [1.0]}),
        to_json({**result().to_dict(), "interval": None}),
        to_json({**result().to_dict(), "cost": {"wings": 2}}),
        to_json({**result().to_dict(), "evidence": []}),
    ],
)
def test_a_record_that_cannot_be_read_is_no_record(tmp_path, text):
    store = Store(tmp_path)
    (tmp_path / "m-key.json").write_text(text, encoding="utf-8")
    assert store.load("m", "key") is None
    store.save("m", "key", result())
    assert store.load("m", "key") == result()


def test_a_record_that_is_no_text_is_no_record(tmp_path):
    (tmp_path / "m-key.json").write_bytes(b"\xff\xfe\x00garbage")
    assert Store(tmp_path).load("m", "key") is None


# -- writing --------------------------------------------------------------------------------------


def test_writing_makes_folders_and_replaces(tmp_path):
    path = tmp_path / "a" / "b" / "record.json"
    write_atomically(path, "one")
    write_atomically(path, "zwei · δ")
    assert path.read_text(encoding="utf-8") == "zwei · δ"
    assert [file.name for file in path.parent.iterdir()] == ["record.json"]
    assert path.stat().st_mode & 0o444 == 0o444


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "record.json"
    write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "half of it \ud800")
    assert path.read_text(encoding="utf-8") == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["record.json"]


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("pathlib.Path.replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "record.json", "text")
    assert list(tmp_path.iterdir()) == []


# -- provenance -----------------------------------------------------------------------------------


def test_a_hash_sees_names_types_shapes_and_bytes():
    base = torch.arange(6.0)
    hashes = [
        content_hash([("w", base)]),
        content_hash([("v", base)]),
        content_hash([("w", base.double())]),
        content_hash([("w", base.reshape(2, 3))]),
        content_hash([("w", base + 1e-7)]),
        content_hash([("w", -base)]),  # 0.0 and -0.0 differ too
        content_hash([("w", base), ("b", base)]),
        content_hash([("b", base), ("w", base)]),
        content_hash([("w", base.bfloat16())]),
        content_hash([]),
    ]
    assert len(set(hashes)) == len(hashes)


def test_a_hash_does_not_see_the_memory_layout():
    base = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    assert content_hash([("w", base)]) == content_hash([("w", base.T.contiguous().T)])
    assert content_hash([("w", base)]) == content_hash([("w", base.clone().requires_grad_())])
    assert content_hash([("w", torch.tensor(1.0))]) != content_hash([("w", torch.tensor([1.0]))])


def test_the_environment_is_json_able_and_tells_the_versions():
    found = environment()
    assert json.loads(to_json(found)) == found
    assert found["torch"] == torch.__version__
    assert {"landscape", "numpy", "scipy", "python", "platform", "threads", "time"} <= set(found)
