"""Hooks into training: measures every so many steps, appended to a table."""

from landscape.callbacks.edges import edge_measures, edge_table
from landscape.callbacks.exporters import Exporter, TensorBoardExporter, WandbExporter
from landscape.callbacks.lightning_monitor import LightningMonitor
from landscape.callbacks.monitor import Monitor
from landscape.callbacks.row import Row
from landscape.callbacks.trainer_monitor import TrainerMonitor

__all__ = [
    "Exporter",
    "LightningMonitor",
    "Monitor",
    "Row",
    "TensorBoardExporter",
    "TrainerMonitor",
    "WandbExporter",
    "edge_measures",
    "edge_table",
]
