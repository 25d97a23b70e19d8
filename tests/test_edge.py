"""Edges of stability: the formulas, SAM's edge met by a trained net, the picture."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import landscape
from landscape.callbacks import Monitor, edge_measures, edge_table
from landscape.tasks import read_checkpoint
from landscape.tasks.stability import edge_of_groups
from landscape.training import SAM, Recipe, edge_of_stability, sam_edge, train
from landscape.viz import plot_edge

TOP = "λ max"

LR, RHO = 0.1, 0.1


@pytest.mark.parametrize(("momentum", "decay"), [(0.0, 0.0), (0.9, 0.0), (0.5, 0.3)])
@pytest.mark.parametrize("factor", [0.98, 1.02])
def test_descent_on_a_quadratic_is_stable_below_its_edge_alone(momentum, decay, factor):
    curvature = factor * edge_of_stability(LR, momentum, decay)
    weight = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    optimizer = torch.optim.SGD([weight], lr=LR, momentum=momentum, weight_decay=decay)
    for _ in range(800):
        optimizer.zero_grad()
        (curvature / 2 * weight.square()).sum().backward()
        optimizer.step()
    assert (abs(weight.item()) < 1) == (factor < 1)


@pytest.mark.parametrize("factor", [0.97, 1.03])
def test_sam_on_a_quadratic_shrinks_steps_below_its_edge_alone(factor):
    """The gradient is that of the point, so that one step tells."""
    curvature = factor * sam_edge(edge_of_stability(LR), RHO, gradient_norm=3.0)
    model = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        model.weight.fill_(3.0 / curvature)
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=LR), model, rho=RHO)
    before = model.weight.item()

    def closure():
        loss = (curvature / 2 * model.weight.square()).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert (abs(model.weight.item()) < before) == (factor < 1)


def test_limits_of_the_edge_of_sam():
    assert sam_edge(20.0, 0.0, 1.0) == 20.0
    assert sam_edge(20.0, 1e-9, 1.0) == pytest.approx(20.0)
    assert sam_edge(20.0, 0.1, 0.0) == 0.0
    edge = sam_edge(20.0, 0.1, 0.5)
    assert edge * (1 + 0.1 * edge / 0.5) == pytest.approx(20.0)
    assert math.isclose(edge, 0.5 / 0.2 * (math.sqrt(1 + 4 * 0.1 * 20 / 0.5) - 1))


OPTIMISERS = {
    "sgd": (lambda w: torch.optim.SGD(w, lr=0.1), 20.0),
    "momentum and decay": (
        lambda w: torch.optim.SGD(w, lr=0.1, momentum=0.9, weight_decay=0.5),
        37.5,
    ),
    "nesterov": (lambda w: torch.optim.SGD(w, lr=0.1, momentum=0.9, nesterov=True), None),
    "adam": (lambda w: torch.optim.Adam(w, lr=0.1), None),
    "two rates": (
        lambda w: torch.optim.SGD([{"params": w[:1]}, {"params": w[1:], "lr": 0.2}], lr=0.1),
        None,
    ),
}


@pytest.mark.parametrize(("make", "edge"), OPTIMISERS.values(), ids=OPTIMISERS)
def test_checkpoints_and_optimisers_have_the_same_edge(make, edge, tmp_path):
    model = nn.Linear(2, 2)
    optimizer = make(list(model.parameters()))
    expected = edge if edge is None else pytest.approx(edge)
    assert edge_of_groups(optimizer.param_groups) == expected
    torch.save(
        {"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "w.pt"
    )
    assert read_checkpoint(tmp_path / "w.pt").stability_edge() == expected


@pytest.mark.parametrize("given", [{"lr": 0.0}, {"lr": 0.1, "momentum": 2.0}])
def test_edges_check_what_they_are_given(given):
    with pytest.raises(ValueError, match="must be a number"):
        edge_of_stability(**given)


def followed(method, epochs=600, every=100, **settings):
    """λ_max of a small regression trained on all data at once, and the edges, towards the end."""
    source = torch.Generator().manual_seed(0)
    inputs = torch.randn(64, 6, generator=source)
    targets = torch.sin(2 * inputs[:, :1]) + inputs[:, 1:2] * inputs[:, 2:3]
    task = landscape.Task(
        model=lambda: nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 1)),
        objective="mse",
        train=(inputs, targets),
    )
    monitor = Monitor("mse", [(inputs, targets)], edge_measures(), every="epoch")
    recipe = Recipe(method=method, momentum=0.0, batch_size=64, epochs=epochs, **settings)

    def observe(model, optimizer, step, epoch):
        if epoch >= 0.8 * epochs and epoch % every == 0:
            monitor.measure(model, step, optimizer=optimizer, epoch=epoch)

    train(task, recipe, observe=observe)
    return edge_table(monitor.frame, recipe)


@pytest.mark.parametrize(("lr", "rho"), [(0.1, 0.02), (0.2, 0.05)])
def test_a_net_trained_by_sam_stays_at_the_predicted_edge(lr, rho):
    table = followed("sam", lr=lr, settings={"rho": rho})
    assert len(table) == 2
    assert (table["value"] / table["sam_edge"]).between(0.85, 1.15).all()
    # The prediction is not that of plain descent: it lies far below.
    assert (table["value"] < 0.7 * table["edge"]).all()
    assert table["edge"].tolist() == pytest.approx([2 / lr] * 2)


def test_the_same_net_trained_without_sam_is_sharper_and_has_no_edge_of_sam():
    table = followed("sgd", lr=0.1)
    assert table["sam_edge"].isna().all()
    assert table["value"].min() > 13
    assert (table["value"] < 1.15 * table["edge"]).all()


def test_adamw_has_no_edge():
    table = followed("adamw", epochs=2, every=1, lr=0.001)
    assert table["edge"].isna().all()
    assert table["value"].notna().all()


def frame(**columns):
    given = {
        "step": [0, 10, 20],
        "value": [1.0, 4.0, 6.0],
        "low": [0.9, 3.9, 5.8],
        "high": [1.1, 4.1, 6.2],
        "edge": [10.0, 10.0, 10.0],
        "sam_edge": [9.0, 7.0, 6.1],
    }
    return pd.DataFrame(given | columns)


def lines(display):
    return {line.get_label(): line.get_ydata().tolist() for line in display.ax_.lines}


def test_the_picture_shows_the_eigenvalue_and_both_edges():
    display = plot_edge(frame())
    assert lines(display) == {
        TOP: [1.0, 4.0, 6.0],
        "edge of the base optimiser": [10.0, 10.0, 10.0],
        "edge of SAM": [9.0, 7.0, 6.1],
    }
    assert display.ax_.get_ylim()[1] > 10
    texts = {text.get_text() for text in display.ax_.texts}
    assert texts == {TOP, "edge of the base optimiser", "edge of SAM"}
    assert display.ax_.get_xlabel() == "step"


def test_edges_that_are_not_known_are_not_drawn():
    nothing = [np.nan] * 3
    assert set(lines(plot_edge(frame(sam_edge=nothing)))) == {TOP, "edge of the base optimiser"}
    assert set(lines(plot_edge(frame(sam_edge=nothing, edge=nothing)))) == {TOP}


def test_an_edge_far_above_leaves_the_picture():
    display = plot_edge(frame(edge=[1000.0] * 3))
    assert display.ax_.get_ylim()[1] < 20


def test_a_step_without_a_value_is_left_out():
    assert lines(plot_edge(frame(value=[1.0, np.nan, 6.0])))[TOP] == [1.0, 6.0]


def test_a_table_that_cannot_be_drawn_is_told():
    with pytest.raises(ValueError, match=r"lacks edge; give the one of edge\.csv"):
        plot_edge(frame().drop(columns="edge"))
    with pytest.raises(ValueError, match="no finite eigenvalue"):
        plot_edge(frame(value=[np.nan] * 3))
