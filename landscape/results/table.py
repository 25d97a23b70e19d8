"""Results of one checkpoint, by name."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from landscape.results.cost import Cost
from landscape.results.result import Result, finite

if TYPE_CHECKING:
    import pandas as pd


class Table:
    """An ordered collection of results, read by name: ``table["hessian-trace"].value``.

    Args:
        results: The results; a later one replaces an earlier one of the same name.
        provenance: Model, data, software and machine of the whole table.
        warnings: Sentences for the reader of the report.
        extras: Further JSON-able sections of the report, by name (task metrics, cross-check).
    """

    def __init__(
        self,
        results: list[Result],
        *,
        provenance: dict[str, Any] | None = None,
        warnings: list[str] | None = None,
        extras: dict[str, Any] | None = None,
    ) -> None:
        self._results = {result.measure: result for result in results}
        self.provenance = dict(provenance or {})
        self.warnings = list(warnings or [])
        self.extras = dict(extras or {})

    def __getitem__(self, name: str) -> Result:
        if name not in self._results:
            raise KeyError(f"no result named {name!r}; the table holds {list(self._results)}")
        return self._results[name]

    def __iter__(self) -> Iterator[Result]:
        return iter(self._results.values())

    def __len__(self) -> int:
        return len(self._results)

    def __contains__(self, name: object) -> bool:
        return name in self._results

    @property
    def cost(self) -> Cost:
        """What the whole table cost, shared evidence counted once."""
        total = sum(self.evidence.values(), Cost())
        for result in self:
            shared = sum(result.evidence.values(), Cost())
            total += Cost(
                forwards=result.cost.forwards - shared.forwards,
                gradients=result.cost.gradients - shared.gradients,
                products=result.cost.products - shared.products,
                seconds=result.cost.seconds - shared.seconds,
                peak_memory=result.cost.peak_memory,
            )
        return total

    @property
    def evidence(self) -> dict[str, Cost]:
        """Cost of each piece of shared evidence, by key."""
        return {key: cost for result in self for key, cost in result.evidence.items()}

    def to_frame(self) -> pd.DataFrame:
        """One row a measure: value, stderr, low, high, status, message and cost columns."""
        import pandas as pd  # noqa: PLC0415 - half a second that a bare import need not pay

        rows = [
            {
                "measure": result.measure,
                "value": result.value,
                "stderr": result.stderr,
                "low": result.interval[0],
                "high": result.interval[1],
                "status": result.status.value,
                "message": result.message,
                **result.cost.to_dict(),
                "evidence": " ".join(result.evidence),
                "seed": result.seed,
            }
            for result in self
        ]
        return pd.DataFrame(rows).set_index("measure") if rows else pd.DataFrame()

    def to_dict(self) -> dict[str, Any]:
        """The JSON-able report from which every picture and page is drawn."""
        report: dict[str, Any] = finite(
            {
                "results": [result.to_dict() for result in self],
                "evidence": {key: cost.to_dict() for key, cost in self.evidence.items()},
                "cost": self.cost.to_dict(),
                "provenance": self.provenance,
                "warnings": self.warnings,
                "extras": self.extras,
            }
        )
        return report

    @classmethod
    def from_dict(cls, report: dict[str, Any]) -> Table:
        """Inverse of ``to_dict``."""
        return cls(
            [Result.from_dict(record) for record in report["results"]],
            provenance=report["provenance"],
            warnings=report["warnings"],
            extras=report["extras"],
        )


def write_atomically(path: Path, text: str) -> None:
    """Writes text so that a reader or a kill never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def to_json(report: dict[str, Any]) -> str:
    """Strict JSON text (no NaN), keys in the order given."""
    return json.dumps(report, indent=1, allow_nan=False) + "\n"
