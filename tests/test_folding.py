"""Folding batch norms: the outputs stay, or the batch norm does."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

from landscape import Probe
from landscape.evidence.layer_norms import LayerNormsRequest
from landscape.geometry.folding import find_folding, plain_copy


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def trained(model, seed=0):
    """Weights and running statistics as after training: far from 0 and 1."""
    draws = source(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draws))
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(torch.randn(buffer.shape, generator=draws))
            if name.endswith("running_var"):
                buffer.copy_(0.3 + torch.rand(buffer.shape, generator=draws))
    return model.double().eval()


def probe_of(model, shape=(2, 6, 6), objective="cross_entropy", **settings):
    draws = source(1)
    inputs = torch.randn(7, *shape, generator=draws, dtype=torch.float64)
    return Probe(model, objective, [(inputs, torch.arange(7) % 3)], **settings)


def made(*body, shape=(2, 6, 6)):
    """A net of these modules and a linear layer of the right size on top."""
    with torch.no_grad():
        features = nn.Sequential(*body, nn.Flatten()).eval()(torch.zeros(1, *shape)).shape[1]
    return trained(nn.Sequential(*body, nn.ReLU(), nn.Flatten(), nn.Linear(features, 3)))


def bodies():
    conv, norm = nn.Conv2d, nn.BatchNorm2d
    image = (2, 6, 6)
    return {
        "bias": ((conv(2, 4, 3), norm(4)), image),
        "no bias": ((conv(2, 4, 3, bias=False), norm(4)), image),
        "no affine": ((conv(2, 4, 3), norm(4, affine=False)), image),
        "large epsilon": ((conv(2, 4, 3), norm(4, eps=2.0)), image),
        "groups": ((conv(2, 4, 3, groups=2), norm(4)), image),
        "transposed": ((nn.ConvTranspose2d(2, 5, 2), norm(5)), image),
        "linear": ((nn.Linear(4, 5), nn.BatchNorm1d(5)), (4,)),
        "sequence": ((nn.Conv1d(2, 4, 2, bias=False), nn.BatchNorm1d(4)), (2, 5)),
        "volume": ((nn.Conv3d(1, 3, 2), nn.BatchNorm3d(3)), (1, 3, 3, 3)),
        "weight norm": ((weight_norm(conv(2, 4, 3)), norm(4)), image),
        "identity between": ((conv(2, 4, 3), nn.Identity(), norm(4)), image),
    }


@pytest.mark.parametrize("name", list(bodies()))
def test_the_folded_net_is_the_same_function(name):
    body, shape = bodies()[name]
    probe = probe_of(made(*body, shape=shape), shape)
    last = str(len(body) - 1)
    folding = find_folding(probe)
    assert folding.pairs == {last: "0"}
    assert folding.left_out == {}
    folded = plain_copy(probe)
    before = folded.get_parameter("0.weight").clone()
    folding.apply(folded)
    folded[int(last)] = nn.Identity()  # that is what is left of it
    expected = probe.outputs_of(probe.model_copy())
    torch.testing.assert_close(probe.outputs_of(folded), expected, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(folded.get_parameter("0.weight"), before)


def test_what_is_left_of_a_batch_norm_is_the_identity():
    probe = probe_of(made(*bodies()["large epsilon"][0]))
    folded = plain_copy(probe)
    find_folding(probe).apply(folded)
    inputs = torch.randn(3, 4, 2, 2, dtype=torch.float64, generator=source())
    torch.testing.assert_close(folded[1](inputs), inputs, rtol=1e-14, atol=1e-14)


def test_the_probe_is_not_touched():
    model = made(*bodies()["bias"][0])
    probe = probe_of(model)
    before, loss = probe.model_hash, probe.losses(torch.zeros(1, probe.size))
    probe.evidence(LayerNormsRequest())
    assert probe._snapshot.content() == before
    assert torch.equal(probe.losses(torch.zeros(1, probe.size)), loss)


def test_the_matrices_are_those_of_the_folded_kernels():
    model = made(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4))
    norms = probe_of(model).evidence(LayerNormsRequest())
    assert norms.names == ("0.weight", "4.weight")
    conv, norm = model[0], model[1]
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    matrix = (conv.weight.detach() * scale.detach().reshape(4, 1, 1, 1)).reshape(4, 18)
    spectrum = torch.linalg.svdvals(matrix)
    assert norms.frobenius[0] == pytest.approx(float((spectrum**2).sum()), rel=1e-12)
    assert norms.spectral[0] == pytest.approx(float(spectrum[0] ** 2), rel=1e-12)
    plain = probe_of(model).evidence(LayerNormsRequest(fold=False))
    assert plain.frobenius[0] == pytest.approx(
        float(conv.weight.detach().square().sum()), rel=1e-12
    )


def test_a_transposed_convolution_is_a_matrix_of_its_outputs():
    model = made(nn.ConvTranspose2d(2, 5, 2))
    norms = probe_of(model).evidence(LayerNormsRequest())
    matrix = model[0].weight.detach().transpose(0, 1).reshape(5, 8)
    assert norms.spectral[0] == pytest.approx(float(torch.linalg.svdvals(matrix)[0] ** 2))


def test_weight_norm_counts_as_the_weight_it_makes():
    model = made(weight_norm(nn.Conv2d(2, 4, 3)))
    norms = probe_of(model).evidence(LayerNormsRequest())
    weight = model[0].weight.detach().reshape(4, 18)
    assert dict(zip(norms.names, norms.spectral, strict=True))["0.weight"] == pytest.approx(
        float(torch.linalg.svdvals(weight)[0] ** 2)
    )
    assert len(norms.names) == 2


def test_taking_a_parametrisation_off_a_copy_leaves_the_model_its_own():
    model = made(weight_norm(nn.Conv2d(2, 4, 3)))
    probe = probe_of(model)
    plain_copy(probe)
    assert probe.outputs_of(model).equal(probe.outputs_of(probe.model_copy()))
    assert probe.losses(torch.zeros(1, probe.size)).tolist() == [probe.loss()]


def test_the_initial_weights_are_folded_with_the_statistics_of_a_new_batch_norm():
    model = made(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4))
    start = trained(copy.deepcopy(model), seed=5)
    initial = {name: value.detach() for name, value in start.named_parameters()}
    norms = probe_of(model, initial=initial).evidence(LayerNormsRequest())
    conv, norm = model[0], model[1]
    scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).reshape(4, 1, 1, 1)
    first = (start[1].weight / (1 + norm.eps) ** 0.5).reshape(4, 1, 1, 1)
    moved = (conv.weight * scale - start[0].weight * first).detach().reshape(4, 18)
    spectrum = torch.linalg.svdvals(moved)
    assert norms.frobenius_distance[0] == pytest.approx(float((spectrum**2).sum()), rel=1e-12)
    assert norms.spectral_distance[0] == pytest.approx(float(spectrum[0] ** 2), rel=1e-12)


class Odd(nn.Module):
    """Nets in which a batch norm comes after a convolution, and yet not quite."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.conv = nn.Conv2d(2, 2, 3, padding=1)
        self.norm = nn.BatchNorm2d(2, track_running_stats=kind != "no statistics")
        self.second = nn.Conv2d(2, 2, 3, padding=1)
        self.last = nn.BatchNorm2d(2)
        if kind == "shared weight":
            self.second.weight = self.conv.weight
        self.head = nn.Linear(2 * 36, 3)

    def forward(self, x):
        x = getattr(self, self.kind.replace(" ", "_"))(x)
        return self.head(self.last(self.second(x)).relu().flatten(1))

    def pre_activation(self, x):
        return self.conv(self.norm(x).relu())

    def in_place_between(self, x):
        return self.norm(functional.relu(self.conv(x), inplace=True))

    def used_twice(self, x):
        return self.norm(self.conv(self.conv(x)))

    def norm_used_twice(self, x):
        return self.norm(self.norm(self.conv(x)))

    def output_kept(self, x):
        made = self.conv(x)
        return self.norm(made) + made

    def no_statistics(self, x):
        return self.norm(self.conv(x))

    def shared_weight(self, x):
        return self.norm(self.conv(x))

    def unused(self, x):
        return self.conv(x)


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("pre activation", "does not follow"),
        ("in place between", "does not follow"),
        ("used twice", "used more than once"),
        ("norm used twice", "used more than once"),
        ("output kept", "it changes the outputs"),
        ("no statistics", "no running statistics"),
        ("shared weight", "used more than once"),
        ("unused", "does not use it"),
    ],
)
def test_what_cannot_be_folded_stays_and_is_named(kind, why):
    probe = probe_of(trained(Odd(kind)))
    folding = find_folding(probe)
    assert why in folding.left_out["norm"]
    # The other one has nothing to do with it.
    if kind != "shared weight":
        assert folding.pairs == {"last": "second"}
    folded = plain_copy(probe)
    folding.apply(folded)
    torch.testing.assert_close(
        probe.outputs_of(folded), probe.outputs_of(probe.model_copy()), rtol=1e-12, atol=1e-12
    )


def test_a_linear_layer_whose_units_are_not_the_channels_is_not_folded():
    model = trained(
        nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Flatten(), nn.Linear(16, 3))
    )
    probe = probe_of(model, (4, 5))  # (N, 4, 4): the second dimension is no unit
    assert "changes the outputs" in find_folding(probe).left_out["1"]


def test_statistics_of_the_batch_are_not_folded():
    model = made(*bodies()["bias"][0])
    folding = find_folding(probe_of(model, batch_norm="batch"))
    assert folding.pairs == {}
    assert "statistics of each batch" in folding.left_out["1"]


def test_recalibrated_statistics_are_folded():
    model = made(*bodies()["bias"][0])
    probe = probe_of(model, batch_norm="recalibrate")
    folding = find_folding(probe)
    assert folding.pairs == {"1": "0"}
    folded = plain_copy(probe)
    folding.apply(folded)
    losses = functional.cross_entropy(probe.outputs_of(folded).reshape(7, 3), torch.arange(7) % 3)
    assert float(losses) == pytest.approx(probe.loss(), rel=1e-10)


def test_losses_do_where_there_are_no_outputs():
    def loss(model, batch):
        return functional.cross_entropy(model(batch[0]), batch[1], reduction="none")

    assert find_folding(probe_of(made(*bodies()["bias"][0]), objective=loss)).pairs == {"1": "0"}
    kept = probe_of(trained(Odd("output kept")), objective=loss)
    assert set(find_folding(kept).left_out) == {"norm"}


@pytest.mark.parametrize("seed", range(3))
def test_single_precision_is_enough(seed):
    model = trained(Odd("pre activation"), seed).float()
    draws = torch.randn(5, 2, 6, 6, generator=source(seed))
    probe = Probe(model, "cross_entropy", [(draws, torch.arange(5) % 3)])
    assert find_folding(probe).pairs == {"last": "second"}
