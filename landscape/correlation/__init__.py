"""Rank correlation of measures with generalisation over a population of models."""

from landscape.correlation.correlate import correlate
from landscape.correlation.correlations import Correlations
from landscape.correlation.options import Options

__all__ = ["Correlations", "Options", "correlate"]
