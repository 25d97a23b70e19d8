"""A picture of a slice, chosen by the number of its directions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from landscape.viz.slice_contour import plot_slice_contour
from landscape.viz.slice_data import dims_of
from landscape.viz.slice_display import SliceDisplay
from landscape.viz.slice_line import plot_slice_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from xarray import Dataset


def plot_slice(
    dataset: Dataset, ax: Axes | None = None, variable: str | None = None, **options: Any
) -> SliceDisplay:
    """Draws a slice: a curve along one direction, contours along two.

    Args:
        dataset: What ``evaluate_slice`` gives, or a file that it wrote, opened with xarray; it is
            not changed.
        ax: Axes to draw on; None makes a figure of its own, one column of a paper wide.
        variable: What to draw; None draws the losses on train and test data along one direction,
            "train_loss" along two.
        options: Of ``plot_slice_line`` or ``plot_slice_contour``.

    Returns:
        The axes and their figure, with a method ``save``; nothing is shown or saved.

    Raises:
        ValueError: If the dataset is no slice or lacks the variable.

    Example:
        >>> import landscape
        >>> landscape.viz.plot_slice(dataset).save("slice.pdf")  # doctest: +SKIP
    """
    if len(dims_of(dataset)) == 1:
        return plot_slice_line(dataset, ax, variable, **options)
    return plot_slice_contour(dataset, ax, variable, **options)
