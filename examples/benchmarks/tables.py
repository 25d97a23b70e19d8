"""Writes docs/benchmarks/README.md from the JSON records beside it, so that both agree."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import population_tables as populations
from _common import RECORDS, console

HEAD = """# Benchmarks

Written by `python examples/benchmarks/tables.py` from the JSON records in this folder, which hold
the raw numbers, the command and the machine. Each script says with `--help` what it measures.
"""


def products(record: dict[str, Any]) -> str:
    """Time of Hessian-vector products by model and contender."""
    lines = [
        (
            f"Blocks of {record['vectors']} vectors, batches of {record['batches']} examples, "
            f"medians of {record['rounds']} interleaved rounds. Milliseconds a vector (g: multiple "
            "of the same run's gradient; p: multiple of the fastest peer)."
        ),
        "",
        "| | " + " | ".join(record["models"]) + " |",
        "|---|" + "---:|" * len(record["models"]),
    ]
    models = record["models"].values()
    gradients = (f"{1e3 * model['gradient_seconds']:.1f}" for model in models)
    lines.append("| one gradient | " + " | ".join(gradients) + " |")
    lines.extend(
        f"| {name} | " + " | ".join(_cell(m, name) for m in models) + " |"
        for name in next(iter(models))["contenders"]
    )
    verdicts = [
        f"{name}: {_verdict(model['targets'], 'of_fastest_peer')} × the fastest peer, "
        f"{_verdict(model['targets'], 'gradients_per_vector')} × one gradient"
        for name, model in record["models"].items()
    ]
    lines += [
        "",
        f"Targets of landscape, warm: {'; '.join(verdicts)}.",
        "",
        (
            "Why: the graph of the gradient is built once and differentiated for every vector; "
            "PyHessian and hessian-eigenthings rebuild it for each. Derivatives are added where "
            "they belong in the flat result, and batch norm with fixed statistics is "
            "differentiated twice in fused kernels. On the MLP a product has 1.1 times the "
            "matrix multiplications of a gradient, which bounds what is left to gain on peers "
            "that batch the vectors too (curvlinops). *By hand* is what an expert gets from one "
            "PyHessian object a batch; it is no peer."
        ),
    ]
    return "\n".join(lines)


def _cell(model: dict[str, Any], name: str) -> str:
    row = model["contenders"][name]
    if "missing" in row:
        return row["missing"]
    peer = f"; {row['of_fastest_peer']:.2f} p" if "of_fastest_peer" in row else ""
    return f"{1e3 * row['seconds_per_vector']:.1f} ({row['gradients_per_vector']:.2f} g{peer})"


def _verdict(targets: dict[str, Any], key: str) -> str:
    return f"≤ {targets[key]} {'met' if targets['met_' + key] else 'missed'}"


def spectral_audit(record: dict[str, Any]) -> str:
    """Products and seconds to equal accuracy."""
    lines = [
        (
            f"Digits checkpoint, {record['seeds']} seeds, against the dense float64 Hessian. Our "
            "products give all quantities at once, PyHessian's one each."
        ),
        "",
        "| quantity and way | rms relative error | products | seconds |",
        "|---|---:|---:|---:|",
    ]
    for name, our in record["landscape"].items():
        ways = {f"**{name}, landscape**": our}
        theirs = record["pyhessian"].get(name, {})
        ways |= {f"{name}, PyHessian, {label}": row for label, row in theirs.items()}
        lines += [
            f"| {label} | {row['rms_relative_error']:.1e} | {row['products']:.0f} "
            f"| {row['seconds']:.2f} |"
            for label, row in ways.items()
        ]
    for name, found in record["equal_accuracy"].items():
        if "products_ratio" not in found:
            lines += [
                "",
                (
                    f"PyHessian does not reach our accuracy of the {name}, nor 1e-6, with "
                    f"{found['closest']}; the table says what it pays for less."
                ),
            ]
            continue
        lines += [
            "",
            (
                f"Equal accuracy of the {name}: {found['products_ratio']:.2f} × the products and "
                f"{found['seconds_ratio']:.2f} × the seconds of our whole request "
                f"({found['setting']})."
            ),
        ]
    lines += [
        "",
        (
            "Why: Lanczos takes the large eigenvalues out exactly, so that the random probes have "
            "only the small rest to estimate. PyHessian's largest eigenvalue alone, to five "
            "digits, is cheaper than our request; the request pays when more than that is wanted."
        ),
    ]
    return "\n".join(lines)


def calibration(record: dict[str, Any]) -> str:
    """Accuracy, coverage, and the place in the bracket."""
    lines: list[str] = []
    if found := record.get("accuracy"):
        lines += [
            (
                f"Accuracy of the float32 probe, {found['seeds']} seeds, {found['products']:.0f} "
                "products for all quantities (at most 300 wanted)."
            ),
            "",
            "| quantity | rms relative error | largest | target | met |",
            "|---|---:|---:|---:|---|",
        ]
        lines += [
            f"| {name} | {row['rms_relative_error']:.1e} | {row['largest_relative_error']:.1e} "
            f"| {row['target']:g} | {'yes' if row['met'] else 'no'} |"
            for name, row in found["quantities"].items()
        ]
        lines.append("")
    if found := record.get("coverage"):
        lines += [
            f"Coverage of the 95 % intervals, {found['seeds']} seeds (at least 90 % wanted).",
            "",
            "| quantity | covered | truth | bias | rms error | interval width |",
            "|---|---:|---:|---:|---:|---:|",
        ]
        lines += [
            f"| {name} | {100 * row['coverage']:.1f} % | {row['truth']:.4g} | {row['bias']:.2g} "
            f"| {row['rms_error']:.2g} | {row['median_interval_width']:.2g} |"
            for name, row in found["quantities"].items()
        ]
        lines.append("")
    if found := record.get("place"):
        lines += [
            (
                f"Place of the truth between the quadrature rules: of {found['cases']} cases "
                f"{100 * found['share_within']:.1f} % are within {found['half_width']} of the "
                f"bracket, the largest error is {found['largest_error']:.2f}, the rms "
                f"{found['rms']:.3f}. "
                "Largest errors by spectrum, as a share of the bracket:"
            ),
            "",
            *_places(found["rows"]),
            "",
        ]
    lines.append(
        "Why: large eigenvalues are exact and the spread over probes is honest for what remains. "
        "The quadrature error of |λ|^α is systematic; its half-width makes the intervals of the "
        "Rényi sharpness wide, and they cover more than they promise."
    )
    return "\n".join(lines)


def _places(rows: list[dict[str, Any]]) -> list[str]:
    powers = sorted({row["power"] for row in rows})
    lines = [
        "| spectrum | " + " | ".join(f"\\|x\\|^{power:g}" for power in powers) + " |",
        "|---|" + "---:|" * len(powers),
    ]
    for name in dict.fromkeys(row["spectrum"] for row in rows):
        cells = []
        for power in powers:
            errors = [
                abs(row["error"])
                for row in rows
                if (row["spectrum"], row["power"]) == (name, power) and row["error"] is not None
            ]
            cells.append(f"{max(errors):.2f}" if errors else "exact")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def memory(record: dict[str, Any]) -> str:
    """Lanczos under a budget."""
    return "\n".join(
        [
            "| parameters | budget, GiB | used, GiB | unbounded basis, GiB | products | seconds |",
            "|---:|---:|---:|---:|---:|---:|",
            (
                f"| {record['parameters']:,} | {record['budget_gib']:.1f} "
                f"| {record['used_gib']:.2f} "
                f"| {record['unbounded_basis_gib']:.2f} | {record['products']:.0f} "
                f"| {record['seconds']:.0f} |"
            ),
            "",
            (
                "Why: thick restarts keep both ends of the spectrum in a basis of "
                f"{record['basis_vectors']} vectors, and the probes keep three vectors each."
            ),
        ]
    )


def neighbourhood(record: dict[str, Any]) -> str:
    """Time, sharing and quality of the neighbourhood measures."""
    lines: list[str] = []
    if found := record.get("speed"):
        lines += [
            (
                f"Time against the same passes by hand, batches of {record['batch']}, median (and "
                f"range) of the ratios of {record['rounds']} interleaved rounds. By hand are 20 "
                "gradients and 21 forward passes, or 100 forward passes."
            ),
            "",
            "| | " + " | ".join(f"{name} | target" for name in found) + " |",
            "|---|" + "---:|---|" * len(found),
        ]
        titles = next(iter(found.values()))
        lines += [
            f"| {title} | " + " | ".join(_ratio(rows[title]) for rows in found.values()) + " |"
            for title in titles
        ]
        lines.append("")
    if found := record.get("sharing"):
        verdict = "met" if found["met"] else "missed"
        passes = ", ".join(f"{count:.0f} {name}" for name, count in found["passes"].items())
        lines += [
            (
                f"Sharing, digits checkpoint: the four noise measures together take "
                f"{found['ratio']:.2f} × the time of the dearest of them alone "
                f"(≤ {found['target']} {verdict}, median of {found['rounds']} rounds). "
                f"Passes counted: {passes}."
            ),
            "",
        ]
    if found := record.get("quality"):
        lines += [
            (
                "Max-sharpness of the digits checkpoint in parts of 128: the rise that 20 "
                "gradients find, as a multiple of what the published algorithm finds with 20 "
                "gradients and 20 forward passes, and of a search of 200 gradients from each of "
                "4 starts."
            ),
            "",
            "| ball | rise | × published | × long search | published × long search |",
            "|---|---:|---:|---:|---:|",
        ]
        lines += [
            f"| {row['geometry']}, {row['norm']}, ρ = {row['rho']:g} | {row['ours']:.4g} "
            f"| {row['of_published']:.4f} | {row['of_long']:.4f} "
            f"| {row['published_of_long']:.4f} |"
            for row in found
        ]
        lines.append("")
    lines.append(
        "Why: measures of the same noise read one set of losses. An ascent reads the loss of a "
        "point off the pass that gives its gradient, 20 gradients and 2 forward passes in all, "
        "where the published one evaluates both. The time of a measure contains the trial of "
        "whether batching its points pays, on four of them; `products=loop` does without. Where a "
        "pass is short (mlp), vectors of all parameters take longer than the passes: drawing "
        "noise, projecting and combining offsets."
    )
    return "\n".join(lines)


def _ratio(row: dict[str, Any]) -> str:
    spread = f"{row['lowest_ratio']:.2f} - {row['highest_ratio']:.2f}"
    verdict = f"≤ {row['target']} {'met' if row['met'] else 'missed'}" if "met" in row else ""
    return f"{row['ratio']:.2f} ({spread}) | {verdict}"


def neighbourhood_coverage(record: dict[str, Any]) -> str:
    """Coverage of the noise measures."""
    lines = [
        (
            f"Coverage of the 95 % intervals of {record['samples']} samples over "
            f"{record['seeds']} seeds, digits checkpoint, {record['examples']} examples; truth "
            f"from {record['reference_samples']:,} samples of another seed. *Uncertain* is the "
            "share of seeds whose status says so."
        ),
        "",
        "| measure | covered | asked | uncertain | truth | its stderr | bias | rms error |",
        "|---|---:|---|---:|---:|---:|---:|---:|",
    ]
    for name, row in record["quantities"].items():
        asked = f"≥ 90 % {'met' if row['met'] else 'missed'}" if "met" in row else ""
        lines.append(
            f"| {name} | {100 * row['coverage']:.1f} % | {asked} | {100 * row['uncertain']:.0f} % "
            f"| {row['truth']:.4g} | {row['truth_stderr']:.1g} | {row['bias']:.1g} "
            f"| {row['rms_error']:.2g} |"
        )
    lines += [
        "",
        (
            "Why: antithetic pairs are independent and their mean is nearly normal; the log-mean "
            "of the tilted measure has bias and error of the delta method. Where t times the "
            "spread of the losses is large, rare losses set the value. Seeds that did not draw "
            "them can know neither from the spread they see nor from the effective number of "
            "samples; low coverage beside a low share of uncertain ones is the price."
        ),
    ]
    return "\n".join(lines)


def searches(record: dict[str, Any]) -> str:
    """How much of the extreme loss searches in balls reach, and whether they say so."""

    def percent(share: float | None) -> str:
        return "-" if share is None else f"{100 * share:.0f} %"

    found = record["summary"]
    targets = record["targets"]
    verdicts = {name: "met" if entry["met"] else "missed" for name, entry in targets.items()}
    lines = [
        (
            "Max- and min-sharpness at their defaults against the best of long searches from many "
            "starts, small nets in float64. *Reached* is the share of the cases in which the value "
            "is at least 95 % of that; *held* the share whose interval holds it; *told* the share "
            "of those that fall short whose status or interval says so."
        ),
        "",
        (
            "| | cases | median share | lowest tenth | reached | ok | ok reached | ok held "
            "| short | told | gradients |"
        ),
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {name} | {row['cases']} | {row['median_share']:.4f} | {row['lowest_tenth']:.3f} "
        f"| {percent(row['reached'])} | {row['ok']} | {percent(row['ok_reached'])} "
        f"| {percent(row['ok_held'])} | {row['short']} | {percent(row['short_told'])} "
        f"| {row['mean_gradients']:.0f} |"
        for name, row in found.items()
    ]
    lines += [
        "",
        (
            f"Targets: {percent(targets['ok_reached']['least'])} of the cases with status ok "
            f"reached ({verdicts['ok_reached']}), {percent(targets['short_told']['least'])} of "
            f"those that fall short told ({verdicts['short_told']})."
        ),
        "",
        (
            "Why: the highest of several maxima lies mostly at an end of a direction of large "
            "curvature, where gradients from the checkpoint alone do not lead; L-BFGS follows "
            "stiff valleys. What is missed without a word are maxima near which none of the five "
            "starts begins, while two of them end equally high."
        ),
    ]
    return "\n".join(lines)


def geodesic(record: dict[str, Any]) -> str:
    """Time of the geodesic ascent against the adaptive one."""
    lines = [
        (
            f"A ViT of the size of ViT-tiny ({record['parameters']:,} parameters, 72 pairs of "
            f"matrices), {record['images']} images in one part, {record['steps']} steps; ratios "
            "inside rounds, their median, lowest and highest. A batch that takes longer makes the "
            "geometry, whose work does not depend on it, count for less."
        ),
        "",
        "| metric | geodesic / adaptive | range | asked |",
        "|---|---:|---:|---|",
    ]
    for metric in ("inv", "mix"):
        row = record[metric]
        asked = f"≤ {row['target']} {'met' if row['met'] else 'missed'}"
        ends = f"{row['lowest_ratio']:.2f} - {row['highest_ratio']:.2f}"
        lines.append(f"| {metric} | {row['ratio']:.2f} | {ends} | {asked} |")
    return "\n".join(lines)


def slices(record: dict[str, Any]) -> str:
    """Time of planes against bare forward passes and other tools."""
    lines = [
        (
            "A plane of two filter-normalised directions; ratios inside rounds, their medians. "
            "*Dense* evaluates every point, with standard errors; *refined* has a tolerance of "
            f"{record['tolerance']} of the range, or of the range of the logarithm, against the "
            "fastest of the two others."
        ),
        "",
        (
            "| network | grid | dense / forwards | asked | loop / forwards "
            "| loss-landscapes / forwards | refined, gain | on the logarithm | asked |"
        ),
        "|---|---|---:|---|---:|---:|---:|---:|---|",
    ]
    for name, row in record["networks"].items():
        gains = {
            scale: f"{entry['ratio']:.1f} x ({row['evaluated_points'][scale]} points)"
            for scale, entry in row["refined"].items()
        }
        told = row["refined"].get("linear")
        asked = f"≥ {told['target']:g} x {'met' if told['met'] else 'missed'}" if told else ""
        dense = row["dense"]
        lines.append(
            f"| {name} | {row['points']} x {row['points']} | {dense['ratio']:.3f} "
            f"| ≤ {dense['target']} {'met' if dense['met'] else 'missed'} "
            f"| {row['peers']['loop']['ratio']:.3f} "
            f"| {row['peers']['loss-landscapes']['ratio']:.3f} "
            f"| {gains.get('linear', '')} | {gains.get('log', '')} | {asked} |"
        )
    return "\n".join(lines)


def refinement(record: dict[str, Any]) -> str:
    """True errors of refined planes, and what happens where no spline can follow."""
    lines = [
        (
            f"Random planes of {record['points']:,} points, tolerance {record['tolerance']}. "
            "*Within*: planes whose true largest error is below the tolerance. *Said*: planes "
            "whose recorded error is at least the true one."
        ),
        "",
        (
            "| surface | variable | planes | within | median error | largest error | said "
            "| mean points | fewer |"
        ),
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    surfaces = [
        (f"{net}, {kind}", row)
        for net, kinds in record["nets"].items()
        for kind, row in kinds.items()
    ]
    for title, row in [*surfaces, *record["adversarial"].items()]:
        for variable, errors in row["variables"].items():
            lines.append(
                f"| {title} | {variable} | {row['surfaces']} | {100 * row['within']:.0f} % "
                f"| {errors['median_error']:.2g} | {errors['largest_error']:.2g} "
                f"| {100 * errors['estimate_above_error']:.0f} % | {row['mean_evaluations']:.0f} "
                f"| {row['times_fewer']:.1f} x |"
            )
    return "\n".join(lines)


SECTIONS: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "products": ("Hessian-vector products", products),
    "spectral_audit": ("Products and seconds to equal accuracy", spectral_audit),
    "calibration": ("Accuracy and coverage", calibration),
    "memory": ("Lanczos in bounded memory", memory),
    "neighbourhood": ("Neighbourhood measures: time and ascent", neighbourhood),
    "neighbourhood_coverage": ("Neighbourhood measures: coverage", neighbourhood_coverage),
    "searches": ("Searches in balls", searches),
    "geodesic": ("Geodesic sharpness: time", geodesic),
    "slices": ("Slices: time", slices),
    "refinement": ("Slices: refinement", refinement),
    "correlation_coverage": ("Rank correlations: coverage", populations.correlation_coverage),
    "correlation_speed": ("Rank correlations: time", populations.correlation_speed),
    "sweep_throughput": ("Sweeps: overhead", populations.sweep_throughput),
    "sweep_kills": ("Sweeps: killed and gone on with", populations.sweep_kills),
}


def machine(record: dict[str, Any]) -> str:
    """Command and machine in a line."""
    found = record["machine"]
    load = found.get("load_average_at_end")
    busy = f", load average {load[0]:.1f} at the end" if load else ""
    return (
        f"`{record['command']}` on {found['gpu'] or found['cpu']}, {found['cpus']} cores, "
        f"{found['threads']} threads, torch {found['torch']}, {found['time'][:10]}{busy}."
    )


def main() -> None:
    """Writes the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=Path, default=RECORDS, help="folder of the JSON records")
    folder = parser.parse_args().records
    parts = [HEAD]
    for name, (title, render) in SECTIONS.items():
        path = folder / f"{name}.json"
        parts.append(f"## {title}\n")
        if not path.exists():
            parts.append(f"Not recorded yet: `python examples/benchmarks/{name}.py`.\n")
            continue
        record = json.loads(path.read_text(encoding="utf-8"))
        parts.append(f"{render(record)}\n\n{machine(record)}\n")
    target = folder / "README.md"
    target.write_text("\n".join(parts), encoding="utf-8")
    console.print(f"written: {target}")


if __name__ == "__main__":
    main()
