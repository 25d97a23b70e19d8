"""Names, labels and presets of measures."""

from importlib import metadata

import pytest

from landscape import measures
from landscape.measures import PRESETS, TRANSFORMATIONS, Measure, UnknownMeasureError, resolve
from landscape.measures.registry import expand
from landscape.results import Estimate

BUILT_IN = (
    "train-loss",
    "gradient-norm",
    "parameter-norm",
    "hessian-trace",
    "hessian-top-eigenvalue",
    "hessian-bottom-eigenvalue",
    "hessian-frobenius",
    "hessian-spectral-density",
    "effective-dimension",
    "renyi-sharpness",
)
COST_CLASSES = ("free", "low", "medium", "high")


def test_all_built_in_measures_are_available():
    assert set(BUILT_IN) <= set(measures.available())
    for name, measure in measures.available().items():
        assert measure.name == name


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_measure_tells_about_itself(name):
    measure = measures.available()[name]
    assert measure.meaning.endswith(".")
    assert measure.formula
    assert measure.source
    assert measure.cost_class in COST_CLASSES
    assert set(measure.invariances) <= set(TRANSFORMATIONS)
    assert measure.__doc__
    fields = set(measure.__dataclass_fields__)
    assert measure.budget <= fields
    assert all(set(variant) <= fields for variant in measure.variants)


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_measure_is_hashable_and_equal_by_its_fields(name):
    assert measures.get(name) == measures.get(name)
    assert hash(measures.get(name)) == hash(measures.get(name))
    with pytest.raises(AttributeError, match="cannot assign"):
        measures.get(name).probes = 3


def test_get_sets_fields():
    measure = measures.get("hessian-trace", matvecs=60, method="hutch++")
    assert isinstance(measure, measures.HessianTrace)
    assert measure.config["matvecs"] == 60
    assert measure.config["method"] == "hutch++"
    assert measures.get("renyi-sharpness", alpha=2).alpha == 2


@pytest.mark.parametrize(
    ("wrong", "close"),
    [
        ("hessian-trase", "hessian-trace"),
        ("renyi", "renyi-sharpness"),
        ("top-eigenvalue", "hessian-top-eigenvalue"),
    ],
)
def test_an_unknown_name_tells_the_closest(wrong, close):
    with pytest.raises(UnknownMeasureError, match=f"unknown measure '{wrong}'; did you mean") as e:
        measures.get(wrong)
    assert close in str(e.value).partition("All names")[0]
    assert isinstance(e.value, ValueError)


def test_a_hopeless_name_tells_all():
    with pytest.raises(UnknownMeasureError, match="all names: train-loss, gradient-norm"):
        measures.get("zzzzzz")


def test_a_wrong_field_tells_the_right_ones():
    with pytest.raises(ValueError, match=r"renyi-sharpness has no field order; .*'alpha'"):
        measures.get("renyi-sharpness", order=2)
    with pytest.raises(ValueError, match="train-loss has no field steps; its fields are none"):
        measures.get("train-loss", steps=3)


def test_a_bare_name_stands_for_its_variants():
    labels = [measure.label for measure in expand(["renyi-sharpness"])]
    assert labels == [f"renyi-sharpness[alpha={alpha}]" for alpha in ("0.5", "1.5", "2")]


def test_labels_tell_what_is_measured_and_not_its_budget():
    assert measures.get("hessian-trace", probes=20, layers=True).label == "hessian-trace"
    assert measures.get("hessian-trace", operator="ggn").label == "hessian-trace[operator=ggn]"
    assert measures.get("effective-dimension", z=0.1).label == "effective-dimension[z=0.1]"
    normalised = measures.get("renyi-sharpness", alpha=2.0, normalized=True)
    assert normalised.label == "renyi-sharpness[alpha=2,normalized=True]"


def test_a_budget_reaches_the_measures_that_have_it():
    found = expand(["train-loss", "hessian-frobenius"], steps=7, probes=3)
    assert found[1].steps == 7
    assert found[1].probes == 3


def test_the_same_measure_twice_is_refused():
    with pytest.raises(ValueError, match=r"hessian-trace asked for more than once"):
        expand(["hessian-trace", "hessian-trace"])
    with pytest.raises(ValueError, match="more than once"):
        expand(["renyi-sharpness", measures.get("renyi-sharpness", alpha=2.0)])
    # A second budget of the same quantity would take the first one's row.
    with pytest.raises(ValueError, match="more than once"):
        expand([measures.get("hessian-trace"), measures.get("hessian-trace", matvecs=60)])
    assert len(expand(["hessian-trace", measures.get("hessian-trace", operator="ggn")])) == 2


def test_what_is_no_measure_is_refused():
    with pytest.raises(TypeError, match="names or Measures, got int"):
        expand([3])


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_have_unique_labels(preset):
    labels = [measure.label for measure in resolve(preset)]
    assert len(set(labels)) == len(labels) >= len(BUILT_IN)


def products(preset):
    """Of the whole network, all spectral measures together; and whether layers come on top."""
    requests = {
        measure._request(0)
        for measure in resolve(preset)
        if isinstance(measure, measures.SpectralMeasure)
    }
    layers = any(getattr(measure, "layers", False) for measure in resolve(preset))
    return sum(request.passes for request in requests), layers


def test_presets_are_ordered_by_cost():
    assert list(PRESETS) == ["quick", "standard", "full"]
    costs = [products(preset) for preset in PRESETS]
    assert costs == sorted(costs)
    assert len(set(costs)) == 3


def test_the_standard_preset_keeps_to_three_hundred_products():
    assert products("standard") == (300, False)


def test_the_quick_preset_spends_less_on_a_large_model():
    def spent(size):
        spectral = [m for m in resolve("quick", size) if isinstance(m, measures.SpectralMeasure)]
        (request,) = {measure._request(0) for measure in spectral}
        return request.passes

    assert spent(20_000_000) == 90
    assert spent(20_000_001) == 18
    labels = [[measure.label for measure in resolve("quick", size)] for size in (1, 10**9)]
    assert labels[0] == labels[1]


def test_resolve_takes_names_lists_and_commas():
    assert [measure.name for measure in resolve("hessian-trace")] == ["hessian-trace"]
    wanted = ["train-loss", "hessian-trace"]
    assert [measure.name for measure in resolve(wanted)] == wanted
    assert [measure.name for measure in resolve("train-loss, hessian-trace,")] == wanted
    own = measures.get("hessian-trace", matvecs=12)
    assert resolve([own]) == [own]


@pytest.mark.parametrize("nothing", ["", ",", []])
def test_nothing_asked_for_is_an_error(nothing):
    with pytest.raises(ValueError, match="no measure asked for; give a preset"):
        resolve(nothing)


# -- third parties --------------------------------------------------------------------------------


class WeightSum(Measure):
    """A third party's measure."""

    name = "weight-sum"
    meaning = "Sum of the weights."
    formula = "Σ wᵢ"
    source = "an example"
    cost_class = "free"

    def estimate(self, probe, seed):
        del seed
        return Estimate.exact(float(probe.weights().sum()))


class Impostor(WeightSum):
    name = "hessian-trace"


@pytest.fixture
def installed(monkeypatch):
    """Pretends that a distribution registers an object."""

    def install(found):
        class Entry:
            value = "somewhere:Something"

            @staticmethod
            def load():
                return found

        monkeypatch.setattr(
            metadata, "entry_points", lambda group: [Entry] if group == "landscape.measures" else []
        )

    return install


def test_an_entry_point_adds_a_measure(installed):
    installed(WeightSum)
    assert list(measures.available())[-1] == "weight-sum"
    assert isinstance(measures.get("weight-sum"), WeightSum)
    with pytest.raises(UnknownMeasureError, match="did you mean weight-sum"):
        measures.get("weight-sun")


def test_an_entry_point_that_is_no_measure_is_refused(installed):
    installed(dict)
    with pytest.raises(TypeError, match=r"'somewhere:Something'.*must name a subclass"):
        measures.available()


def test_two_measures_of_one_name_are_refused(installed):
    installed(Impostor)
    with pytest.raises(ValueError, match="two measures are named 'hessian-trace'"):
        measures.available()


def test_settings_by_name_are_honoured():
    found = resolve({"max-sharpness": {"rho": 0.5}, "hessian-trace": None})
    assert {measure.name: measure.config.get("rho") for measure in found} == {
        "max-sharpness": 0.5,
        "hessian-trace": None,
    }
    mixed = resolve(["train-loss", {"average-sharpness": {"samples": 8}}])
    assert mixed[1].config["samples"] == 8
    assert resolve('{"max-sharpness": {"rho": 0.5}}')[0].config["rho"] == 0.5
    kinds = resolve({"fisher-trace": {"kind": "empirical"}})  # one of its variants
    assert [measure.label for measure in kinds] == ["fisher-trace[kind=empirical]"]


@pytest.mark.parametrize(
    ("asked", "error", "words"),
    [
        ({"max-sharpness": {"radius": 1}}, ValueError, "has no field radius"),
        ({"max-sharpnes": {}}, UnknownMeasureError, "did you mean max-sharpness"),
        ({"max-sharpness": 0.5}, TypeError, "must be fields by name"),
        ({"quick": {"samples": 3}}, ValueError, "takes no settings"),
        ({}, ValueError, "no measure asked for"),
        ('{"max-sharpness": ', ValueError, "given as JSON"),
    ],
)
def test_settings_that_fit_no_measure_are_refused(asked, error, words):
    with pytest.raises(error, match=words):
        resolve(asked)
