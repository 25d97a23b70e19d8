"""What a report says in words and numbers: plain values, made from ``report.json`` alone."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from landscape.results import format_estimate
from landscape.viz.measure_table import base_name
from landscape.viz.wording import count, seconds, typeset

# Measures that a reader looks for first, with the words and the sign of a headline.
_HEADLINES = {
    "hessian-top-eigenvalue": ("Largest eigenvalue", "λ_max"),
    "hessian-bottom-eigenvalue": ("Smallest eigenvalue", "λ_min"),
    "hessian-trace": ("Trace", "tr H"),
    "hessian-frobenius": ("Frobenius norm", "‖H‖_F"),
    "hessian-spectral-density": ("Share of flat directions", ""),
    "effective-dimension": ("Effective dimension", ""),
}
_TILES = 4
_METRICS = (("loss", -1), ("accuracy", 1))  # the gap is train − test, times the sign
_PASSES = ("forwards", "gradients", "products")
_MEASURED = ("ok", "not converged", "uncertain")


def title(report: dict[str, Any]) -> str:
    """File name of the checkpoint, or what was audited."""
    checkpoint = report["extras"].get("task", {}).get("checkpoint")
    return PurePath(checkpoint).name if checkpoint else "A model and its loss"


def facts(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Model, data and machine, in a line."""
    task, origin = report["extras"].get("task", {}), report["provenance"]
    found = {
        "Task": task.get("name"),
        "Objective": origin.get("objective"),
        "Parameters P": count(origin["size"]) if "size" in origin else None,
        "Loss terms": count(origin["terms"]) if "terms" in origin else None,
        "Device": origin.get("gpu") if origin.get("device") == "cuda" else origin.get("device"),
        "Precision": origin.get("dtype"),
        "Edge of stability": edge(report),
        "Curvature products": count(report["cost"]["products"]),
        "Total time": seconds(report["cost"]["seconds"]),
    }
    return [(name, str(value)) for name, value in found.items() if value is not None]


def edge(report: dict[str, Any]) -> str | None:
    """Edge of stability of the checkpoint's optimiser, and what share the top eigenvalue has."""
    limit = report["extras"].get("task", {}).get("stability_edge")
    if not limit:
        return None
    told = f"{limit:.4g}"
    top = [
        record["value"]
        for record in report["results"]
        if record["measure"] == "hessian-top-eigenvalue" and record["status"] in _MEASURED
    ]
    return f"{told}; largest eigenvalue at {100 * top[0] / limit:.2g} %" if top else told


def headlines(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The results that a reader looks for first; of few results, all."""
    measured = [record for record in records if record["status"] in _MEASURED]
    rank = list(_HEADLINES)
    known = sorted(
        (record for record in measured if base_name(record["measure"]) in rank),
        key=lambda record: rank.index(base_name(record["measure"])),
    )
    chosen = known + [record for record in measured if record not in known]
    tiles = []
    for record in chosen[:_TILES]:
        plain = record["measure"] in _HEADLINES
        name, sign = _HEADLINES[record["measure"]] if plain else (record["measure"], "")
        tiles.append({**record, "name": name, "sign": sign})
    return tiles


def task_metrics(report: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Rows (metric, train, test, gap), as far as the task tells them."""
    task = report["extras"].get("task", {})
    rows = []
    for metric, sign in _METRICS:
        train, test = task.get(f"train_{metric}"), task.get(f"test_{metric}")
        if train is None and test is None:
            continue
        form = _percent if metric == "accuracy" else "{:.4g}".format
        gap = task.get(f"gap_{metric}")
        if gap is None and train is not None and test is not None:
            gap = sign * (train - test)
        cells = ["—" if part is None else typeset(form(part)) for part in (train, test, gap)]
        rows.append((metric.capitalize(), cells[0], cells[1], cells[2]))
    return rows


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def checks(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of the cross-check, each side with its error."""
    rows = report["extras"].get("cross_check") or []
    return [
        {
            **row,
            "value": our_side(row["ours"], row["low"], row["high"]),
            "interval": (row["low"], row["high"]),
            "theirs": either_side(row["peer_value"], row.get("peer_error")),
        }
        for row in rows
    ]


def our_side(value: float | None, low: float | None, high: float | None) -> str:
    """A value with the half-width of its 95 % interval, of equal ends for none."""
    return _plain(format_estimate(value, 0.0 if low == high else None, (low, high)))


def either_side(value: float | None, half: float | None) -> str:
    """A value with the half-width of its 95 % interval, 0 for none."""
    ends = (None, None) if value is None or half is None else (value - half, value + half)
    return _plain(format_estimate(value, 0.0 if half == 0 else None, ends))


def _plain(text: str) -> str:
    """Without the mark that a heading makes for the whole column."""
    return typeset(text.removesuffix(" (95 %)"))


_DERIVATIVES = {
    "gradient": "the gradient",
    "hessian": "Hessian products",
    "ggn": "products of the outputs' Jacobian",
}


def derivatives(report: dict[str, Any]) -> str:
    """How derivatives compare with differences, and what rounding does to them, in a line."""
    found = _checks(report)
    compared = [
        f"{words} to {typeset(format(found[name]['disagreement'], '.0e'))}"
        for name, words in _DERIVATIVES.items()
        if name in found and found[name].get("disagreement") is not None
    ]
    rounding = found.get("rounding") or {}
    errors = [
        f"{name} {typeset(format(rounding[key], '.0e'))}{share}"
        for key, name, share in (
            ("loss", "the loss", ""),
            ("gradient", "the gradient", ""),
            ("product", "products", " of their size"),
        )
        if rounding.get(key) is not None
    ]
    sentences = []
    if compared:
        sentences.append(f"Checked against differences: {', '.join(compared)}.")
    if errors:
        sentences.append(f"Measured rounding errors: {', '.join(errors)}.")
    if obstacle := found.get("obstacle"):
        sentences.append(f"Nothing could be evaluated in float64 ({obstacle}).")
    return " ".join(sentences)


def disagreements(report: dict[str, Any]) -> list[str]:
    """What is wrong with derivatives by autograd, a sentence each."""
    found = _checks(report)
    entries = [found[name] for name in _DERIVATIVES if name in found]
    return [entry["warning"] for entry in entries if entry.get("warning")]


def _checks(report: dict[str, Any]) -> dict[str, Any]:
    found = report["provenance"].get("checks")
    return found if isinstance(found, dict) else {}


def evidence(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of the cost table: each piece of evidence, then what the measures did themselves."""
    rows = [{"name": key, **cost} for key, cost in report["evidence"].items()]
    own = {
        kind: max(report["cost"][kind] - sum(row[kind] for row in rows), 0)
        for kind in (*_PASSES, "seconds")
    }
    return [*rows, {"name": "", **own, "peak_memory": None}]


def provenance(report: dict[str, Any]) -> list[tuple[str, Any]]:
    """Where the numbers come from, by name."""
    task = report["extras"].get("task", {})
    first = {key: task[key] for key in ("checkpoint", "notes", "data") if task.get(key)}
    return [(key.replace("_", " "), value) for key, value in (first | report["provenance"]).items()]
