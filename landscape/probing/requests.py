"""What a request for shared evidence looks like."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from landscape.probing.probe import Probe

Value_co = TypeVar("Value_co", covariant=True)


class Evidence(Protocol[Value_co]):
    """What several measures share: a hashable request that computes its value on a probe."""

    def compute(self, probe: Probe) -> Value_co:
        """Evaluates the model as needed and returns the evidence."""
        ...

    def __hash__(self) -> int: ...
