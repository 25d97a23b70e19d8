"""Results, their cost and origin, and how they are kept."""

from landscape.results.cost import Cost, Meter
from landscape.results.formatting import (
    format_bytes,
    format_estimate,
    format_factor,
    format_interval,
    format_seconds,
)
from landscape.results.provenance import content_hash, environment
from landscape.results.result import Estimate, Result, Status
from landscape.results.store import Store
from landscape.results.table import Table, to_json, write_atomically

__all__ = [
    "Cost",
    "Estimate",
    "Meter",
    "Result",
    "Status",
    "Store",
    "Table",
    "content_hash",
    "environment",
    "format_bytes",
    "format_estimate",
    "format_factor",
    "format_interval",
    "format_seconds",
    "to_json",
    "write_atomically",
]
