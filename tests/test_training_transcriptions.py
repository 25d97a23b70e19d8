"""The update rules written again in NumPy on flat vectors, from their formulas alone.

A rule is given a reference ``r`` (gradients, losses, the same noise, shapes and a memory) and the
weights, and returns the direction of the base optimiser. tests/test_training_rules.py compares.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from landscape.training import METHODS


def norm(v):
    return np.sqrt(np.sum(v * v))


def top(scores, count):
    mask = np.zeros(len(scores))
    mask[np.argsort(-scores)[:count]] = 1
    return mask


def sam(r, w, rho):
    g = r.grad(w)
    return r.grad(w + rho * g / norm(g))


def asam(r, w, rho, eta, adapt):
    g = r.grad(w)
    parts = zip(r.names, r.cut(w), strict=True)
    T = np.concatenate(
        [
            (np.abs(p) + eta if adapt == "all" or "weight" in name else np.ones(p.shape)).ravel()
            for name, p in parts
        ]
    )
    return r.grad(w + rho * T**2 * g / norm(T * g))


def gsam(r, w, rho, alpha):
    g = r.grad(w)
    gp = r.grad(w + rho * g / norm(g))
    cosine = g @ gp / norm(g) / norm(gp)
    vertical = g - cosine * norm(g) * gp / norm(gp)
    return gp - alpha * vertical


def looksam(r, w, rho, alpha, every):
    step = r.memory["step"] = r.memory.get("step", -1) + 1
    g = r.grad(w)
    if step % every == 0:
        gp = r.grad(w + rho * g / norm(g))
        cosine = g @ gp / norm(g) / norm(gp)
        r.memory["v"] = gp - norm(gp) * cosine * g / norm(g)
        return gp
    return g + alpha * norm(g) / norm(r.memory["v"]) * r.memory["v"]


def m_sam(r, w, rho, micro_batch):
    total = np.zeros_like(w)
    for start in range(0, r.size, micro_batch):
        rows = r.all[start : start + micro_batch]
        g = r.grad(w, rows)
        total += len(rows) * r.grad(w + rho * g / norm(g), rows)
    return total / r.size


def friendly(r, w, rho, sigma, decay):
    g = r.grad(w)
    d = g - sigma * r.memory["m"] if "m" in r.memory else g
    r.memory["m"] = decay * r.memory["m"] + (1 - decay) * g if "m" in r.memory else g
    return r.grad(w + rho * d / norm(d))


def momentum_sam(r, w, rho):
    v = r.momentum
    return r.grad(w if v is None else w - rho * v / norm(v))


def ssam_f(r, w, rho, sparsity):
    if "mask" not in r.memory:  # the test refreshes before the first step
        fisher = sum(r.grad(w, [row]) ** 2 for row in r.all)
        r.memory["mask"] = top(fisher, round((1 - sparsity) * len(w)))
    g = r.grad(w)
    return r.grad(w + rho * r.memory["mask"] * g / norm(g))


def ssam_d(r, w, rho, sparsity, drop, refresh_every, total_steps):
    step = r.memory["step"] = r.memory.get("step", -1) + 1
    g = r.grad(w)
    if step == 0:
        mask = top(r.normal(), round((1 - sparsity) * len(w)))
    else:
        mask = r.memory["mask"]
        if step % refresh_every == 0:
            share = drop / 2 * (1 + math.cos(math.pi * step / total_steps))
            live, dead = np.flatnonzero(mask), np.flatnonzero(mask == 0)
            count = min(round(share * len(live)), len(dead))
            chance = r.normal()
            mask = mask.copy()
            mask[live[np.argsort(np.abs(g[live]))[:count]]] = 0
            mask[dead[np.argsort(-chance[dead])[:count]]] = 1
    r.memory["mask"] = mask
    return r.grad(w + rho * mask * g / norm(g))


def fsam(r, w, rho, keep, refresh_every):
    step = r.memory["step"] = r.memory.get("step", -1) + 1
    g = r.grad(w)
    if step % refresh_every == 0:
        matrix = np.concatenate([np.full(s.numel(), len(s) > 1) for s in r.shapes])
        mask = np.ones_like(w)
        mask[matrix] = top(g[matrix] ** 2, round(keep * matrix.sum()))
        r.memory["mask"] = mask
    return r.grad(w + rho * r.memory["mask"] * g / norm(g))


def esam(r, w, rho, beta, gamma):
    g = r.grad(w)
    chosen = torch.rand(len(r.shapes), generator=r.source).numpy() < beta
    b = np.concatenate([np.full(s.numel(), c) for s, c in zip(r.shapes, chosen, strict=True)])
    if not chosen.any():
        return g
    shifted = w + rho * b / beta * g / norm(g)
    rise = r.losses(shifted) - r.losses(w)
    return r.grad(shifted, np.sort(np.argsort(-rise)[: math.ceil(gamma * r.size)]).tolist())


def bsam(r, w, rho, rho_min):
    g = r.grad(w)
    up = r.grad(w + rho * g / norm(g))
    down = r.grad(w - rho_min * g / norm(g))
    return up + g - norm(up) / norm(down) * down


def tsam(r, w, tilt, samples, rho, sigma, radius):
    losses, grads = [], []
    for _ in range(samples):
        noise = sigma * r.normal()
        noise = noise * min(1, radius / norm(noise))
        g = r.grad(w + noise)
        point = w + noise + rho * g / norm(g)
        losses.append(r.losses(point).mean())
        grads.append(r.grad(point))
    q = np.exp(tilt * (np.array(losses) - max(losses)))
    return (q / q.sum()) @ np.array(grads)


def nso(r, w, sigma, pairs, plain):
    noises = [sigma * r.normal() for _ in range(pairs)]
    noisy = sum(r.grad(w + u) + r.grad(w - u) for u in noises) / (2 * pairs)
    return plain * r.grad(w) + (1 - plain) * noisy


def rsam(r, w, rho, alpha):
    g = r.grad(w)
    G, P = np.sum(g**2) + 1e-16, np.sum(np.abs(g) ** (2 * alpha)) + 1e-16
    return r.grad(w - np.sign(1 - alpha) * rho * P / G ** (alpha + 1) * g)


def lpf_sgd(r, w, gamma, parts):
    widths = np.concatenate(
        [
            np.broadcast_to(
                np.sqrt((p**2).sum(axis=tuple(range(1, p.ndim)), keepdims=True))
                if p.ndim > 1
                else norm(p),
                p.shape,
            ).ravel()
            for p in r.cut(w)
        ]
    )
    total = np.zeros_like(w)
    for rows in np.array_split(r.all, parts):
        total += len(rows) / r.size * r.grad(w + gamma * widths * r.normal(), rows.tolist())
    return total


def plain(r, w, **_):
    return r.grad(w)


def wasam(r, w, rho, **_):
    return sam(r, w, rho)


Rule = Callable[..., np.ndarray]
RULES: list[tuple[str, Rule, dict[str, Any]]] = [
    ("sam", sam, {"rho": 0.3}),
    ("asam", asam, {"rho": 0.5, "eta": 0.01, "adapt": "weights"}),
    ("asam", asam, {"rho": 0.5, "eta": 0.0, "adapt": "all"}),
    ("gsam", gsam, {"rho": 0.3, "alpha": 0.4}),
    ("looksam", looksam, {"rho": 0.3, "alpha": 0.7, "every": 3}),
    ("m-sam", m_sam, {"rho": 0.3, "micro_batch": 4}),
    ("friendly-sam", friendly, {"rho": 0.3, "sigma": 0.8, "decay": 0.6}),
    ("momentum-sam", momentum_sam, {"rho": 0.3}),
    ("ssam-f", ssam_f, {"rho": 0.3, "sparsity": 0.4}),
    (
        "ssam-d",
        ssam_d,
        {"rho": 0.3, "sparsity": 0.4, "drop": 0.5, "refresh_every": 2, "total_steps": 10},
    ),
    ("fsam", fsam, {"rho": 0.3, "keep": 0.3, "refresh_every": 2}),
    ("esam", esam, {"rho": 0.3, "beta": 0.6, "gamma": 0.4}),
    ("bsam", bsam, {"rho": 0.3, "rho_min": 0.1}),
    ("tsam", tsam, {"tilt": 2.0, "samples": 4, "rho": 0.1, "sigma": 0.1, "radius": 0.3}),
    ("nso", nso, {"sigma": 0.1, "pairs": 2, "plain": 0.25}),
    ("nso", nso, {"sigma": 0.1, "pairs": 1, "plain": 0.0}),
    ("rsam", rsam, {"rho": 0.3, "alpha": 1.2}),
    ("rsam", rsam, {"rho": 0.1, "alpha": 0.5}),
    ("lpf-sgd", lpf_sgd, {"gamma": 0.1, "parts": 4}),
    ("swa", plain, {"start": 0}),
    ("ema", plain, {"decay": 0.9}),
    ("wasam", wasam, {"rho": 0.3, "start": 0}),
]


def test_every_method_has_a_transcription():
    assert {name for name, _, _ in RULES} == set(METHODS)
