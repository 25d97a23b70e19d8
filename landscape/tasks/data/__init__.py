"""Data: from files, datasets and loaders to batches in a fixed order."""

from landscape.tasks.data.batching import Batched, batches_of
from landscape.tasks.data.examples import DatasetExamples, Examples, TensorExamples
from landscape.tasks.data.options import DataOptions, Settled
from landscape.tasks.data.reading import read_examples

__all__ = [
    "Batched",
    "DataOptions",
    "DatasetExamples",
    "Examples",
    "Settled",
    "TensorExamples",
    "batches_of",
    "read_examples",
]
