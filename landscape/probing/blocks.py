"""What a user says of a model that cannot be seen: matrices that only act through a product."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from landscape.probing.space import ParamSpace


@dataclass(frozen=True)
class Factor:
    """One of two matrices of which a model sees only the product.

    Args:
        weight: Name of the parameter; one of a single dimension is one row.
        axis: Dimension that is summed over in the product: 0 of an ``nn.Linear`` whose outputs meet
            the other matrix (query, key, value), 1 of one whose inputs do (the output map).
        bias: Name of a bias that is added along that dimension, a further row.
        start: First index along the dimension, for parameters that hold several maps.
        stop: End of the indices; None goes to the last.
    """

    weight: str
    axis: int = 0
    bias: str | None = None
    start: int = 0
    stop: int | None = None

    def places(self, space: ParamSpace) -> Tensor:
        """Places of the matrix in a flat vector, (rows, width); the width is the summed dimension.

        Returns:
            Integers.

        Raises:
            ValueError: If a name is unknown or a shape does not fit.
        """
        named = space.split(torch.arange(space.size))
        weight = self._found(named, self.weight)
        if not -weight.dim() <= self.axis < weight.dim():
            raise ValueError(f"{self.weight} has {weight.dim()} dimensions, none is {self.axis}")
        rows = [weight.movedim(self.axis, -1).reshape(-1, weight.shape[self.axis])]
        if self.bias is not None:
            rows.append(self._found(named, self.bias)[None])
            if rows[1].shape[1:] != rows[0].shape[1:]:
                raise ValueError(
                    f"{self.bias} has {rows[1].numel()} entries, {self.weight} has "
                    f"{rows[0].shape[1]} along dimension {self.axis}; they must be as many"
                )
        return torch.cat(rows)[:, self.start : self.stop]

    def _found(self, named: dict[str, Tensor], name: str) -> Tensor:
        if name not in named:
            raise ValueError(f"{name!r} is no trainable parameter of the model: {', '.join(named)}")
        return named[name]


@dataclass(frozen=True)
class Block:
    """Two matrices G and K that a model sees only through G K^T, head by head.

    Args:
        left: G.
        right: K.
        heads: The summed dimension of both is cut in so many; each head has its own GL(h).

    Example:
        >>> from landscape import Block, Factor
        >>> values = Factor("attention.v.weight", bias="attention.v.bias")
        >>> block = Block(values, Factor("attention.out.weight", axis=1), heads=4)
    """

    left: Factor
    right: Factor
    heads: int = 1

    def places(self, space: ParamSpace) -> list[tuple[Tensor, Tensor]]:
        """Places of G and K of each head in a flat vector, (n, h) and (m, h).

        Returns:
            A pair a head.

        Raises:
            ValueError: If a name is unknown, or the widths do not fit each other or the heads.
        """
        left, right = self.left.places(space), self.right.places(space)
        width = left.shape[1]
        if width != right.shape[1] or self.heads < 1 or width % self.heads:
            raise ValueError(
                f"block {self.left.weight} x {self.right.weight}: widths {width} and "
                f"{right.shape[1]} must be equal and divisible by heads={self.heads}"
            )
        size = width // self.heads
        return list(zip(left.split(size, dim=1), right.split(size, dim=1), strict=True))

    @property
    def parameters(self) -> set[str]:
        """Names of the parameters it speaks of."""
        both = (self.left, self.right)
        named = (name for factor in both for name in (factor.weight, factor.bias))
        return {name for name in named if name is not None}


def checked_blocks(blocks: Sequence[Block], space: ParamSpace) -> tuple[Block, ...]:
    """The blocks themselves.

    Returns:
        ``blocks``.

    Raises:
        ValueError: If a block does not fit the parameters, or two share an entry.
        TypeError: If an entry is no block.
    """
    taken = torch.zeros(space.size, dtype=torch.bool)
    for block in blocks:
        if not isinstance(block, Block):
            raise TypeError(
                f"blocks must hold landscape.Block entries, got {type(block).__name__}; for "
                'example Block(Factor("q.weight"), Factor("k.weight"), heads=4)'
            )
        for left, right in block.places(space):
            for places in (left, right):
                if taken[places].any():
                    raise ValueError(
                        f"blocks overlap in {block.left.weight} x {block.right.weight}; an entry "
                        "may belong to one matrix of one block only"
                    )
                taken[places] = True
    return tuple(blocks)
