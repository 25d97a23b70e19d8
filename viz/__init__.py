"""Pictures and reports, drawn from stored results; matplotlib and jinja2 load when they draw."""

from landscape.viz.barcode import plot_barcode
from landscape.viz.display import Display
from landscape.viz.edge import plot_edge
from landscape.viz.layers import plot_layers
from landscape.viz.noise_scan import plot_noise_scan
from landscape.viz.orbits import plot_orbits
from landscape.viz.radius_scan import plot_radius_scan
from landscape.viz.report import render_report, write_report
from landscape.viz.slice_comparison import plot_slice_comparison
from landscape.viz.slice_contour import plot_slice_contour
from landscape.viz.slice_html import write_slice_html
from landscape.viz.slice_line import plot_slice_line
from landscape.viz.slice_surface import plot_slice_surface
from landscape.viz.slices import plot_slice
from landscape.viz.spectral_density import plot_spectral_density
from landscape.viz.style import style

__all__ = [
    "Display",
    "plot_barcode",
    "plot_edge",
    "plot_layers",
    "plot_noise_scan",
    "plot_orbits",
    "plot_radius_scan",
    "plot_slice",
    "plot_slice_comparison",
    "plot_slice_contour",
    "plot_slice_line",
    "plot_slice_surface",
    "plot_spectral_density",
    "render_report",
    "style",
    "write_report",
    "write_slice_html",
]
