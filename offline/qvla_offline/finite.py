"""Refuses weights and activations that are not finite.

NaN goes through a network unseen and still gives actions: a policy whose logits are NaN commands
the first bin of every axis, whatever it sees. So the tensor is named instead.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from qvla_ros.errors import QvlaError, QvlaWarning

BROKEN_WEIGHT = "download the checkpoint again, or train it again"


def require_finite(name: str, values: Tensor, fix: str = BROKEN_WEIGHT) -> None:
    """Raises QvlaError with the key `name` unless all `values` are finite."""
    largest = _largest(values)
    if not largest.isfinite():
        raise QvlaError(name, "NaN" if largest.isnan() else "infinity", "finite numbers", fix)


def require_representable(name: str, values: Tensor, dtype: torch.dtype, fix: str) -> None:
    """Raises QvlaError with the key `name` if one of the finite `values` overflows `dtype`."""
    largest = _largest(values)
    if not largest.to(dtype).isfinite():
        kind = str(dtype).removeprefix("torch.")
        limit = torch.finfo(dtype).max
        raise QvlaError(
            name,
            f"magnitudes up to {float(largest):.6g}",
            f"at most {limit:.6g}, as {kind} holds",
            fix,
        )


def warn_of_zeros(name: str, values: Tensor) -> None:
    """Warns of a matrix of zeros in a checkpoint: a download that was not finished ends so."""
    if values.ndim > 1 and not values.any():
        text = f"{name} holds nothing but zeros: was its file downloaded whole?"
        warnings.warn(text, QvlaWarning, stacklevel=2)


def _largest(values: Tensor) -> Tensor:
    """Returns the largest magnitude, NaN if one of `values` is.

    They are not copied: they may be a whole embedding.
    """
    if not values.numel():
        return torch.zeros(())
    low, high = torch.aminmax(values.detach())
    return torch.maximum(-low, high)
