"""Adds up what a narrower type changes in the weights of a checkpoint, and says it in one line."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_AT_ONCE = 1 << 22  # numbers


@dataclass
class Rounding:
    """How far tensors are from what they were before they were rounded.

    tensors, numbers: that were changed; changed and total: sums of squares of the changes, and of
    the numbers of all tensors; largest: change of one number.
    """

    tensors: int = 0
    numbers: int = 0
    changed: float = 0.0
    total: float = 0.0
    largest: float = 0.0

    def add(self, exact: Tensor, rounded: Tensor) -> None:
        """Adds one tensor: as it was, and as it is kept (both of any float type).

        Looks at a part at a time: copies of a whole embedding would be gigabytes.
        """
        before = self.numbers
        pairs = (tensor.detach().flatten().split(_AT_ONCE) for tensor in (exact, rounded))
        for one, other in zip(*pairs, strict=True):
            wide = one.float()
            self.total += float(wide.square().sum(dtype=torch.float64))
            change = (wide - other.float()).abs()
            self.numbers += int(change.count_nonzero())
            self.changed += float(change.square().sum(dtype=torch.float64))
            self.largest = max(self.largest, float(change.max()))
        self.tensors += self.numbers > before

    def described(self) -> str | None:
        """The size of all changes; None if there is none."""
        if not self.numbers:
            return None
        relative = (self.changed / self.total) ** 0.5
        return (
            f"{self.numbers:,} numbers of {self.tensors} tensors changed, by {relative:.2g} of "
            f"their norm, by up to {self.largest:.2g}"
        )
