"""The backward pass of an operation: its MACs, and the tensors that the forward pass keeps for it."""

from __future__ import annotations

from typing import NamedTuple


class Saved(NamedTuple):
    """A tensor that autograd keeps from the forward pass of an operation until its backward pass."""

    tensor: int | None
    """The position among the operands (the tensors read, then the weights); ~n for the n-th output; None for a tensor
    that only the backward pass reads, such as a mask, statistics or a copy."""
    nbytes: int = 0
    """The bytes of a tensor that is neither operand nor output."""
    needed_by: tuple[int, ...] = ()
    """It is kept if one of these operands requires a gradient; empty: if any operand does."""
    unless: tuple[int, ...] = ()
    """It is not kept if one of these operands requires a gradient."""


class Backward(NamedTuple):
    """The backward pass of an operation."""

    macs: tuple[tuple[int, tuple[int, ...]], ...] = ()
    """The MACs of each product, with the operands of which one must require a gradient for it to be computed."""
    saves: tuple[Saved, ...] | None = ()
    """None if unknown."""
    passes: bool = False
    """Whether the gradient for an operand is that of the output in the same memory, whole or in part."""
    ends: bool = False
    """Whether no gradient passes through the operation, as through a comparison or a factory."""

    def macs_for(self, required: int) -> int:
        """The MACs if the operands whose bits are set in `required` need a gradient."""
        return sum(n for n, needed_by in self.macs if any(required >> i & 1 for i in needed_by))

    def saved_for(self, required: int) -> list[Saved]:
        """The tensors that are kept if the operands whose bits are set in `required` need a gradient."""
        return [
            kept
            for kept in self.saves or ()
            if (not kept.needed_by or any(required >> i & 1 for i in kept.needed_by))
            and not any(required >> i & 1 for i in kept.unless)
        ]
