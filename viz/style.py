"""The look of every picture: colours that all readers can tell apart, sizes for print."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

#: Okabe and Ito's blue, vermilion and a grey, by role.
CURVE, EXTREME, FAINT = "#0072B2", "#D55E00", "#8A939E"

_STYLE = Path(__file__).parent / "styles" / "landscape.mplstyle"


def style() -> AbstractContextManager[Any]:
    """The house style as a context; matplotlib's own settings come back when it ends.

    Returns:
        A context manager.

    Example:
        >>> import matplotlib
        >>> before = matplotlib.rcParams["font.size"]
        >>> with style():
        ...     inside = matplotlib.rcParams["font.size"]
        >>> inside, matplotlib.rcParams["font.size"] == before
        (8.0, True)
    """
    import matplotlib.style

    return matplotlib.style.context(_STYLE)
