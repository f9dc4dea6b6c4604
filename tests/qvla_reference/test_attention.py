"""Plain attention gives what torch's fused attention gives."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from qvla_reference.attention import PlainAttention


@pytest.mark.parametrize("masked", [False, True])
def test_plain_attention_is_attention(masked: bool) -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 3, 7, 4, requires_grad=True) for _ in range(3))
    mask = torch.rand(2, 1, 1, 7) > 0.4 if masked else None
    expected = scaled_dot_product_attention(query, key, value, attn_mask=mask)
    with PlainAttention():
        found = scaled_dot_product_attention(query, key, value, attn_mask=mask)
    assert not torch.equal(found, expected)  # another way of computing it
    torch.testing.assert_close(found, expected)
    inputs = (query, key, value)
    for ours, theirs in zip(
        *(torch.autograd.grad(x.square().sum(), inputs) for x in (found, expected)), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_other_attention_is_left_to_torch() -> None:
    query, key, value = (torch.randn(1, 1, 5, 4) for _ in range(3))
    with PlainAttention():
        found = scaled_dot_product_attention(query, key, value, is_causal=True)
    assert torch.equal(found, scaled_dot_product_attention(query, key, value, is_causal=True))
