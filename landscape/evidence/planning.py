"""What evidence will cost, before it is computed."""

from __future__ import annotations

from landscape.probing import Probe
from landscape.results import Cost


def share(probe: Probe, points: int | None) -> float:
    """Share of the data that so many examples are, an example of one loss term assumed."""
    return 1.0 if points is None else min(1.0, points / probe.terms)


def vector_bytes(probe: Probe, count: int, memory: int) -> int:
    """Bytes of so many vectors of parameters, at most those of a budget."""
    return min(memory, count * probe.size * probe.dtype.itemsize)


def planned(request: object, probe: Probe) -> Cost:
    """What a request will cost at most; nothing where it does not say.

    Args:
        request: Evidence with ``planned(probe)``, or without.
        probe: On which it will be computed.

    Returns:
        Passes, and in ``peak_memory`` the bytes of vectors held beside the probe.
    """
    plan = getattr(request, "planned", None)
    return Cost() if plan is None else plan(probe)
