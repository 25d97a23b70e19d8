"""Names of a state in the words of a model: wrappers, prefixes, spellings of weight norm."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

# Wrappers that stand anywhere in a name: of torch.compile, activation checkpointing, FSDP.
_WRAPPERS = {"_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module"}
_DEEPEST = 4  # prefixes are tried up to this many parts


def cleaned(name: str) -> str:
    """The name without the wrappers that may stand anywhere in it."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


@dataclass(frozen=True)
class Translation:
    """How names of a state become names of a model.

    Args:
        targets: By cleaned name, the model's own name.
        strip: A prefix to take away.
        add: A prefix to put in front.
    """

    targets: dict[str, str]
    strip: str = ""
    add: str = ""

    def __call__(self, name: str) -> str | None:
        """The model's name; None where it has none."""
        if not name.startswith(self.strip):
            return None
        name = self.add + name[len(self.strip) :]
        return next((self.targets[one] for one in _spellings(name) if one in self.targets), None)

    def hits(self, names: Iterable[str]) -> set[str]:
        """The names of the model that are found."""
        return {target for target in map(self, names) if target is not None}

    def notes(self) -> list[str]:
        """What is done to the names."""
        stripped = [f"prefix {self.strip!r} removed from the names"] if self.strip else []
        added = [f"prefix {self.add!r} put in front of the names"] if self.add else []
        return stripped + added


def translations(names: list[str], wanted: Iterable[str], *, partly: bool) -> Iterator[Translation]:
    """Ways to read the names, the most literal first.

    Args:
        names: Of the state, cleaned.
        wanted: Of the model.
        partly: Also prefixes that not all names have.

    Yields:
        As they are, without a prefix, with one in front.
    """
    targets = {cleaned(name): name for name in wanted}
    yield Translation(targets)
    for prefix in _prefixes(names):
        if partly or all(name.startswith(prefix) for name in names):
            yield Translation(targets, strip=prefix)
    for prefix in _prefixes(targets):
        yield Translation(targets, add=prefix)


def _prefixes(names: Iterable[str]) -> list[str]:
    found = {
        ".".join(parts[:depth]) + "."
        for parts in (name.split(".") for name in names)
        for depth in range(1, min(len(parts), _DEEPEST + 1))
    }
    return sorted(found, key=lambda prefix: (is_average(prefix), prefix.count("."), prefix))


def is_average(prefix: str) -> bool:
    """Whether a prefix names averaged weights, which are not those that were trained."""
    return re.search(r"(^|[._])(ema|swa|averaged?|shadow|teacher)([._]|$)", prefix) is not None


def _spellings(name: str) -> Iterator[str]:
    """A name, and the other way to write a parameter of weight norm."""
    yield name
    if old := re.fullmatch(r"(.*?)([^.]+)_([gv])", name):
        yield f"{old[1]}parametrizations.{old[2]}.original{'gv'.index(old[3])}"
    if new := re.fullmatch(r"(.*?)parametrizations\.([^.]+)\.original([01])", name):
        yield f"{new[1]}{new[2]}_{'gv'[int(new[3])]}"
