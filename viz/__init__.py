"""Pictures and reports, drawn from stored results; matplotlib and jinja2 load when they draw."""

from landscape.viz.display import Display
from landscape.viz.layers import plot_layers
from landscape.viz.noise_scan import plot_noise_scan
from landscape.viz.orbits import plot_orbits
from landscape.viz.radius_scan import plot_radius_scan
from landscape.viz.report import render_report, write_report
from landscape.viz.spectral_density import plot_spectral_density
from landscape.viz.style import style

__all__ = [
    "Display",
    "plot_layers",
    "plot_noise_scan",
    "plot_orbits",
    "plot_radius_scan",
    "plot_spectral_density",
    "render_report",
    "style",
    "write_report",
]
