"""The persistence barcode of a slice: a bar for each basin, from its floor to its saddle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from landscape.viz.slice_data import Flags, Values
from landscape.viz.slice_display import SINGLE, SliceDisplay, draw_key, slice_display
from landscape.viz.slice_scale import round_ticks, set_ticks
from landscape.viz.style import CURVE, EXTREME, style

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

_WIDE = 30.0  # ratio of the ends of the axis from which it is logarithmic


def plot_barcode(
    pairs: ArrayLike, ax: Axes | None = None, *, most: int = 40, label: str = "loss"
) -> SliceDisplay:
    """Draws the basins of a slice as bars, the longest first.

    A bar begins at the loss of a minimum (birth) and ends at the saddle over which its basin joins
    a deeper one (death); its length is the persistence of the minimum. The lowest minimum joins
    no other: its bar ends in an arrow. The axis is logarithmic where all ends are positive and
    differ by more than a factor of thirty; persistence is a difference, so the order of bars does
    not depend on it.

    Args:
        pairs: Birth and death of every basin, (K, 2); an infinite death is a basin that lasts.
            Pairs without persistence are left out.
        ax: Axes to draw on; None makes a figure of its own, one column of a paper wide.
        most: Number of bars; of more, the longest are drawn and the note says so.
        label: Name of the values.

    Returns:
        The axes and their figure; nothing is shown or saved.

    Raises:
        ValueError: If pairs are not of shape (K, 2), if a birth is not finite, or if a death comes
            before its birth.

    Example:
        >>> import landscape
        >>> landscape.viz.plot_barcode([(0.1, float("inf")), (0.3, 0.9)])  # doctest: +SKIP
    """
    from landscape.viz.slice_layout import fit, new_panels

    bars, total = _bars(pairs, most)
    with style():
        ax = new_panels(SINGLE, [(0, 0)])[0] if ax is None else ax
        _value_axis(ax, bars)
        handles = _draw(ax, bars)
        ax.set_xlabel(label, parse_math=False)
        ax.set_ylabel("basins")
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
        more = total > len(bars)
        note = f"the {len(bars)} longest of {total} bars" if more else ""
        draw_key(ax, handles, [note] if note else [])
        fit(ax, (0.2 + 0.07 * len(bars)) / SINGLE)
        return slice_display(ax)


def _bars(pairs: ArrayLike, most: int) -> tuple[Values, int]:
    """Pairs by falling persistence, and the number of all."""
    found = np.array(pairs, dtype=np.float64)
    found = found.reshape(0, 2) if found.size == 0 else found
    if found.ndim != 2 or found.shape[1] != 2:
        raise ValueError(f"pairs are (birth, death), of shape (K, 2); got {found.shape}")
    if not np.isfinite(found[:, 0]).all():
        raise ValueError("a birth is the value of a minimum and has to be finite")
    if not (found[:, 1] >= found[:, 0]).all():
        raise ValueError("a death cannot come before its birth, nor be NaN")
    length = found[:, 1] - found[:, 0]
    order = np.lexsort((found[:, 0], -length))
    order = order[length[order] > 0]
    return found[order[:most]], len(order)


def _value_axis(ax: Axes, bars: Values) -> None:
    ends = bars[np.isfinite(bars)]
    ax.set_ylim(max(len(bars), 1) - 0.4, -0.6)
    if not len(ends):
        ax.set_xlim(0, 1)
        ax.set_xticks([])
        return
    low, high = float(ends.min()), float(ends.max())
    log = low > 0 and high > _WIDE * low
    if log:
        ax.set_xscale("log")
        room = (high / low) ** 0.06
        ax.set_xlim(low / room, high * room**2)
    else:
        room = 0.06 * (high - low) or 0.1 * abs(high) or 1e-12
        ax.set_xlim(low - room, high + 2 * room)
    set_ticks(ax.xaxis, round_ticks(*ax.get_xlim(), log=log))


def _draw(ax: Axes, bars: Values) -> list[Artist]:
    """Bars in their order from the top; handles for the key."""
    from matplotlib.lines import Line2D

    lasting: Flags = np.isinf(bars[:, 1])
    places, right = np.arange(len(bars)), ax.get_xlim()[1]
    width = 2.2 if len(bars) <= 25 else 1.4
    for chosen, color in ((lasting, EXTREME), (~lasting, CURVE)):
        if not chosen.any():
            continue
        ends = np.where(np.isinf(bars[chosen, 1]), right, bars[chosen, 1])
        ax.hlines(places[chosen], bars[chosen, 0], ends, color=color, linewidth=width)
        ax.plot(bars[chosen, 0], places[chosen], "o", color=color, markersize=3, label="_birth")
    if lasting.any():
        ends, arrow = np.full(int(lasting.sum()), right), ">"
        ax.plot(ends, places[lasting], arrow, color=EXTREME, markersize=4.5, clip_on=False)
    look: dict[str, Any] = {"marker": "o", "markersize": 3, "linewidth": 2.2}
    handles: list[Artist] = []
    if lasting.any():
        handles.append(Line2D([], [], color=EXTREME, **look, label="lowest minimum, never joins"))
    if not lasting.all():
        handles.append(Line2D([], [], color=CURVE, **look, label="minimum to saddle"))
    return handles
