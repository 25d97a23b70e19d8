"""The sections of the page of benchmarks on correlations and sweeps."""

from __future__ import annotations

from typing import Any

STATISTICS = {"tau": "τ", "spearman": "ρ", "psi": "Ψ", "partial[given]": "partial τ"}


def correlation_coverage(record: dict[str, Any]) -> str:
    """Coverage by number of configurations and statistic, as ranges over the true values."""
    rounds = max(case["rounds"] for case in record["cases"])
    text = (
        f"95 % intervals, up to {rounds} simulated populations each (standard error 1.5 points), "
        f"{record['bootstraps']} bootstraps. Wanted: 90 to 97 %. Ranges over true τ of 0, 0.3, 0.7 "
        "and 0.9, two functions of the given column and the random control; τ = 0.96 apart.\n"
    )
    lines = [
        text,
        "| configurations | seeds | "
        + " | ".join(f"{sign} | {sign}, extreme" for sign in STATISTICS.values())
        + " | differences |",
        "|---:|---|" + "---:|" * 9,
    ]
    for case in record["cases"]:
        cells = []
        for name in STATISTICS:
            usual, extreme = [], []
            for measure, found in case["found"].items():
                entry = found.get(name, {})
                if "coverage" not in entry or measure in {"no noise", "control: oracle"}:
                    continue
                far = measure == "tau 1.0"
                (extreme if far else usual).append(entry["coverage"])
            cells += [_range(usual), _range(extreme)]
        apart = [
            found["difference"]["coverage"]
            for found in case["found"].values()
            if "difference" in found
        ]
        seeds = "1 to 5" if case["unbalanced"] else "5"
        lines.append(
            f"| {case['configurations']} | {seeds} | {' | '.join(cells)} | {_range(apart)} |"
        )
    return "\n".join(lines)


def _range(shares: list[float]) -> str:
    if not shares:
        return ""
    low, high = 100 * min(shares), 100 * max(shares)
    return f"{low:.0f} %" if len(shares) == 1 else f"{low:.0f}–{high:.0f} %"


def correlation_speed(record: dict[str, Any]) -> str:
    """Time of a call of ``landscape.correlate``."""
    text = (
        f"{record['measures']} measures, {record['bootstraps']} bootstraps, all statistics, "
        f"medians of {record['rounds']} rounds; {record['peak_memory_gib']:.2f} GiB at most. "
        "Wanted: under 60 s on two cores.\n"
    )
    lines = [text, "| table | models | seconds |", "|---|---:|---:|"]
    for name, case in record["cases"].items():
        lines.append(f"| {name} | {case['models']} | {case['median_wall_seconds']:.1f} |")
    return "\n".join(lines)


def sweep_kills(record: dict[str, Any]) -> str:
    """Whether killed sweeps end as undisturbed ones."""
    text = (
        f"{record['models']} checkpoints, measures {record['measures']}: kill -9 of the sweep or "
        "of one worker at random moments, then the same command again until it is done.\n"
    )
    lines = [
        text,
        "| engine | kills | of them the whole sweep | sweeps | all values identical |",
        "|---|---:|---:|---:|---|",
    ]
    for name, found in record["engines"].items():
        kills = found["kills"]
        whole = sum(kill["killed"] == "sweep" for kill in kills)
        same = "yes" if found["identical"] else "NO"
        lines.append(f"| {name} | {len(kills)} | {whole} | {found['sweeps']} | {same} |")
    return "\n".join(lines)


def sweep_throughput(record: dict[str, Any]) -> str:
    """Overhead of a sweep, and of the engine ray."""
    bare, local, ray = (record[name]["seconds"] for name in ("bare", "local", "ray"))
    over = record["local"]["over_measuring"]
    text = (
        f"{record['models']} checkpoints, measures {record['measures']}, {record['workers']} "
        "workers of one thread.\n"
    )
    lines = [
        text,
        "| what | seconds | more than | wanted |",
        "|---|---:|---|---|",
        f"| bare loop of `open_task` and `audit` | {bare:.0f} | | |",
        f"| sweep, local | {local:.0f} | the bare loop: {local / bare - 1:+.1%} | ≤ 10 % |",
        f"| | | its measures alone: {over:+.1%} | |",
        f"| sweep, ray | {ray:.0f} | local: {ray / local - 1:+.1%} | within 15 % |",
    ]
    if "resume" in record:
        found = record["resume"]
        lines.append(
            f"| {found['rows']} finished checkpoints, again | {found['seconds']:.1f} | | |"
        )
    if "remark" in record:
        lines.append(f"\n{record['remark']}")
    return "\n".join(lines)
