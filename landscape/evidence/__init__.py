"""What several measures share, computed once on a probe."""

from landscape.evidence.lanczos_runs import compute_spectrum
from landscape.evidence.spectrum import Spectrum, SpectrumRequest
from landscape.evidence.trace import TraceRequest

__all__ = ["Spectrum", "SpectrumRequest", "TraceRequest", "compute_spectrum"]
