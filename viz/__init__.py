"""Pictures and reports, drawn from stored results; matplotlib and jinja2 load when they draw."""

from landscape.viz.barcode import plot_barcode
from landscape.viz.correlation_coverage import plot_coverage
from landscape.viz.correlation_errors import plot_sign_errors
from landscape.viz.correlation_forest import plot_forest
from landscape.viz.correlation_heatmaps import plot_between, plot_granulated
from landscape.viz.correlation_report import render_correlation_report, write_correlation_report
from landscape.viz.correlation_scans import plot_scan_correlations
from landscape.viz.correlation_scatters import plot_scatters
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
    "plot_between",
    "plot_coverage",
    "plot_edge",
    "plot_forest",
    "plot_granulated",
    "plot_layers",
    "plot_noise_scan",
    "plot_orbits",
    "plot_radius_scan",
    "plot_scan_correlations",
    "plot_scatters",
    "plot_sign_errors",
    "plot_slice",
    "plot_slice_comparison",
    "plot_slice_contour",
    "plot_slice_line",
    "plot_slice_surface",
    "plot_spectral_density",
    "render_correlation_report",
    "render_report",
    "style",
    "write_correlation_report",
    "write_report",
    "write_slice_html",
]
