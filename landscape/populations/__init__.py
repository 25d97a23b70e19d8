"""Populations: many models trained by a design, and all of them measured."""

from landscape.populations.design import Design, Run
from landscape.populations.engines import EngineError
from landscape.populations.inputs import Row, Rows, is_manifest, rows_of
from landscape.populations.kinds import Kind, code_of
from landscape.populations.manifest import read_manifest, write_manifest
from landscape.populations.reading import PRESETS, read_design
from landscape.populations.sweeping import Sweep, sweep
from landscape.populations.swept import Swept
from landscape.populations.tables import write_tables
from landscape.populations.training import train_population
from landscape.populations.workers import Workers

__all__ = [
    "PRESETS",
    "Design",
    "EngineError",
    "Kind",
    "Row",
    "Rows",
    "Run",
    "Sweep",
    "Swept",
    "Workers",
    "code_of",
    "is_manifest",
    "read_design",
    "read_manifest",
    "rows_of",
    "sweep",
    "train_population",
    "write_manifest",
    "write_tables",
]
