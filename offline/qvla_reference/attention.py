"""Computes attention as plain matrix products, for training in bfloat16 on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class PlainAttention(TorchFunctionMode):
    """Makes scaled_dot_product_attention two products and a softmax while the context lasts.

    The result is the same up to rounding. Only the thread that enters the context is concerned.

    torch's fused kernel computes bfloat16 gradients on a CPU several times slower than oneDNN's
    plain products do: at the reference policy's size it took 40 % of a training step, and leaving
    it out made the step 1.6 times as fast.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is F.scaled_dot_product_attention and set(kwargs or {}) <= {"attn_mask"}:
            return _plain_attention(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _plain_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None
) -> Tensor:
    """Computes attention of query, key and value [B, heads, T, D].

    attn_mask: bool, broadcast to [B, heads, T, T], true where attended to.
    """
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    if attn_mask is not None:
        scores = scores + torch.zeros_like(attn_mask, dtype=scores.dtype).masked_fill(
            ~attn_mask, float("-inf")
        )
    return scores.softmax(dim=-1) @ value
