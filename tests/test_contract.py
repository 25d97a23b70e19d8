"""One contract for every measure on every kind of model."""

import copy
import json
import math
from dataclasses import dataclass, fields, replace
from typing import ClassVar

import pytest
import torch

import landscape
from landscape import Measure, Probe, Result, Status, measures
from landscape.measures import TRANSFORMATIONS, DeclinedError, SpectralMeasure
from landscape.results import Estimate, Store, to_json

SMALL = {"steps": 8, "probes": 3, "probe_steps": 5, "samples": 8, "draws": 3}


@dataclass(frozen=True, kw_only=True)
class MeanRise(Measure):
    """A third party's measure: mean rise of the loss under Gaussian noise; needs outputs."""

    name: ClassVar[str] = "mean-rise"
    meaning: ClassVar[str] = "Mean rise of the loss under noise."
    formula: ClassVar[str] = "E L(w + σ ε) − L(w)"
    source: ClassVar[str] = "an example"
    cost_class: ClassVar[str] = "low"
    budget: ClassVar[frozenset[str]] = frozenset({"draws"})

    sigma: float = 1e-2
    draws: int = 4

    def estimate(self, probe: Probe, seed: int) -> Estimate:
        if not probe.objective.has_outputs:
            raise DeclinedError("this example wants an objective with outputs")
        source = torch.Generator().manual_seed(seed)
        noise = torch.randn(self.draws, probe.size, generator=source, dtype=torch.float64)
        rises = probe.losses(self.sigma * noise) - probe.loss()
        value, error = float(rises.mean()), float(rises.std() / self.draws**0.5)
        return Estimate(value=value, stderr=error, interval=(value - 3 * error, value + 3 * error))


def small(measure: Measure) -> Measure:
    own = {entry.name for entry in fields(measure)}
    return replace(measure, **{key: entry for key, entry in SMALL.items() if key in own})


def every_measure() -> list[Measure]:
    """All built-in ones with their variants, the other operator, layers, and a plug-in."""
    found = [
        small(measures.get(name, **variant))
        for name, measure in measures.available().items()
        for variant in measure.variants
    ]
    found += [
        replace(measure, operator="ggn")
        for measure in found
        if isinstance(measure, SpectralMeasure)
    ]
    found += [
        replace(small(measures.get("renyi-sharpness", alpha=3.0, normalized=True)), layers=True),
        measures.get("hessian-trace", matvecs=9),
        MeanRise(),
    ]
    return found


MEASURES = every_measure()
RUNS: dict[tuple[str, str], dict[Measure, Result]] = {}


def order(name: str) -> list[Measure]:
    return {"forward": MEASURES, "backward": MEASURES[::-1]}[name]


def run(model_case, name="forward", seed=3) -> dict[Measure, Result]:
    """Results of all measures on one new probe; kept, since many tests read them."""
    key = (repr(model_case), f"{name}-{seed}")
    if key not in RUNS:
        # A loop: whether batching pays is timed, and rounds differently.
        probe = model_case.probe(products="loop")
        RUNS[key] = {measure: measure.compute(probe, seed) for measure in order(name)}
    return RUNS[key]


@pytest.fixture(params=MEASURES, ids=repr)
def measure(request) -> Measure:
    return request.param


def test_it_gives_a_number_or_says_why_not(model_case, measure):
    result = run(model_case)[measure]
    assert isinstance(result, Result)
    assert result.measure == measure.label
    assert result.seed == 3
    if result.status.measured:
        low, high = result.interval
        assert math.isfinite(result.value)
        assert math.isfinite(result.stderr)
        assert result.stderr >= 0
        assert low <= result.value <= high
        assert math.isfinite(low)
        assert math.isfinite(high)
    else:
        assert result.status in {Status.DECLINED, Status.UNDEFINED}
        assert result.message
        assert math.isnan(result.value)
    assert bool(result.message) == (result.status is not Status.OK)


# Measures of a momentum or of initial weights, which these probes lack.
WANTING = {
    "momentum-gap",
    "pac-bayes-initial",
    "spectral-initial",
    "frobenius-distance",
    "spectral-distance",
    "parameter-distance",
}
# Measures that exist on some networks only: homogeneous chains, rectified networks, layers.
NETWORKS = {
    "minimum-sharpness": {"uneven-batches", "unused"},
    "path-norm": {"conv-bn-eval", "uneven-batches"},
}


def test_measures_decline_only_without_outputs(model_case):
    without = repr(model_case) in {"callable", "scalar"}
    for measure, result in run(model_case).items():
        needs_outputs = (
            getattr(measure, "operator", "") == "ggn"
            or isinstance(measure, MeanRise)
            or getattr(measure, "logit_normalisation", False)
            or getattr(measure, "kind", "") == "model"
            or getattr(measure, "criterion", "") == "accuracy"
            or getattr(measure, "margins", False)
            or getattr(measure, "over_margin", False)
            or measure.name == "inverse-margin"
        )
        without_network = repr(model_case) not in NETWORKS.get(measure.name, {repr(model_case)})
        without_network |= measure.name == "relative-flatness" and repr(model_case) == "scalar"
        declines = (needs_outputs and without) or without_network or measure.name in WANTING
        assert (result.status is Status.DECLINED) == declines, measure


def numbers(result) -> str:
    """Everything measured, as text, in which nan equals nan."""
    record = result.to_dict()
    return to_json({key: record[key] for key in ("value", "stderr", "interval", "diagnostics")})


def test_the_order_of_measures_changes_no_number(model_case):
    backward = run(model_case, "backward")
    for measure, result in run(model_case).items():
        assert numbers(result) == numbers(backward[measure]), measure
        assert result.status == backward[measure].status


def test_the_seed_matters_only_where_something_is_random(model_case):
    one, two = run(model_case), run(model_case, seed=4)
    changed = {m.name for m in MEASURES if repr(one[m].value) != repr(two[m].value)}
    assert not changed & {"train-loss", "gradient-norm", "parameter-norm", "sam-gap"}
    if repr(model_case) == "mlp":
        assert {"hessian-trace", "hessian-frobenius", "mean-rise", "tilted-sharpness"} <= changed


def test_costs_are_counted(model_case):
    probe = model_case.probe()
    seen = set()
    for measure in MEASURES:
        with probe.meter() as spent:
            result = measure.compute(probe, 3)
        # What it costs alone is told, also where most of it was there already.
        for kind in ("products", "gradients", "forwards"):
            there = sum(getattr(cost, kind) for key, cost in result.evidence.items() if key in seen)
            if result.status is not Status.DECLINED:
                told, paid = getattr(result.cost, kind), getattr(spent, kind)
                assert told == pytest.approx(paid + there), (measure, kind)
        seen |= set(result.evidence)
        shared = sum(cost.products for cost in result.evidence.values())
        assert shared <= result.cost.products
        assert result.cost.seconds > 0 or result.status is Status.DECLINED
        if isinstance(measure, SpectralMeasure) and result.status.measured:
            assert 0 < shared == result.cost.products
            if not measure.layers:
                budget = measure.probes * measure.probe_steps + measure.steps
                assert result.cost.products <= max(budget, getattr(measure, "matvecs", 0) or 0)
        if measure.cost_class == "free":
            assert result.cost.passes <= 1


def test_settings_come_back_from_json(model_case):
    for measure, result in run(model_case).items():
        assert result.config == measure.config
        assert json.loads(to_json(result.config)) == result.config
        if measure.name in measures.available():
            assert measures.get(measure.name, **result.config) == measure


def test_results_come_back_from_their_records(model_case, tmp_path):
    store = Store(tmp_path)
    for measure, result in run(model_case).items():
        record = json.loads(to_json(result.to_dict()))
        after = Result.from_dict(record)
        assert after.to_dict() == result.to_dict()
        if "null" not in to_json(record):  # nan is not equal to itself
            assert after == result, measure
        store.save(measure.name, "key", result)
        again = store.load(measure.name, "key")
        assert again is not None
        assert again.to_dict() == result.to_dict()


def test_results_tell_where_they_come_from(model_case):
    probe = model_case.probe()
    for result in run(model_case).values():
        provenance = result.provenance
        assert provenance["weights"] == probe.model_hash
        assert provenance["data"] == probe.identity()["data"]
        assert provenance["size"] == probe.size
        assert provenance["parameters"] == list(probe.space.names)
        assert {"objective", "batch_norm", "dtype", "torch", "landscape", "time"} <= set(provenance)


def bits(tensor):
    return tensor.detach().reshape(-1).contiguous().view(torch.uint8).clone()


def state_of(model):
    """Everything that a measure could leave changed, bit by bit."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return (
        {name: bits(tensor) for name, tensor in tensors.items()},
        {name: tensor.requires_grad for name, tensor in tensors.items()},
        {name: tensor.grad for name, tensor in model.named_parameters()},
        {name: module.training for name, module in model.named_modules()},
    )


def test_the_model_is_not_touched(model_case):
    model, objective, batches = model_case.make()
    model.train()
    kept_batches = copy.deepcopy(batches)
    before, source = state_of(model), torch.get_rng_state()
    probe = Probe(model, objective, batches)
    for measure in MEASURES:
        measure.compute(probe, 0)
    after = state_of(model)
    assert before[1:] == after[1:]
    assert before[0].keys() == after[0].keys()
    assert all(torch.equal(before[0][name], after[0][name]) for name in before[0])
    assert torch.equal(source, torch.get_rng_state())
    for one, two in zip(batches, kept_batches, strict=True):
        pairs = zip(one, two, strict=True) if isinstance(one, tuple) else [(one, two)]
        assert all(torch.equal(*pair) for pair in pairs)


def test_it_keeps_to_the_form_of_a_measure(measure):
    kind = type(measure)
    assert kind.compute is Measure.compute  # final
    assert kind.label is Measure.label
    assert set(kind.invariances) <= set(TRANSFORMATIONS)
    assert repr(measure).startswith(kind.__name__)
    assert hash(measure) == hash(replace(measure))


def test_a_number_that_is_none_is_undefined(named_case):
    class Broken(MeanRise):
        def estimate(self, probe: Probe, seed: int) -> Estimate:  # noqa: ARG002
            nan = math.nan
            return Estimate(value=nan, stderr=nan, interval=(nan, nan))

    result = Broken().compute(named_case("mlp").probe())
    assert result.status is Status.UNDEFINED
    assert result.message == "the value is nan"


def test_an_audit_is_its_measures(model_case):
    """What ``compute`` gives one by one, an audit gives together, its evidence paid for once."""
    chosen = [m for m in MEASURES if m.label != "hessian-trace" or getattr(m, "matvecs", 0) is None]
    probe = model_case.probe(products="loop")
    with probe.meter() as spent:
        table = landscape.audit(probe, chosen, seed=3)
    for measure in chosen:
        alone = run(model_case)[measure]
        assert repr(table[measure.label].value) == repr(alone.value)
        assert table[measure.label].cost.products == alone.cost.products
    assert table.cost.products == spent.products
    assert table.cost.forwards == spent.forwards
    assert table.cost.gradients == spent.gradients


def other_losses(model, batch):
    return 2 * (model(batch) - 1) ** 2


def test_stored_records_of_different_objectives_are_kept_apart(named_case):
    model, objective, batches = named_case("scalar").make()
    other_losses.__qualname__ = objective.__qualname__
    one, two = Probe(model, objective, batches), Probe(model, other_losses, batches)
    assert one.identity() != two.identity()


def test_stored_records_of_different_functions_are_kept_apart():
    """The same weights under another activation are another model."""
    source = torch.Generator().manual_seed(0)
    batches = [(torch.randn(5, 2, generator=source), torch.tensor([0, 1, 0, 1, 1]))]
    one = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
    two = copy.deepcopy(one)
    two[1] = torch.nn.Tanh()
    identities = [Probe(model, "cross_entropy", batches).identity() for model in (one, two)]
    assert identities[0] != identities[1]
