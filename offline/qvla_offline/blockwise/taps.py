"""Records what the layers inside a block read and give while it runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from qvla_offline.checkpoints.targets import QuantizableLayer


@dataclass(frozen=True)
class Tap:
    """One execution of a layer: what it read and what it gave.

    Both are in the autograd graph if there is one.
    """

    name: str
    module: QuantizableLayer
    input: Tensor
    output: Tensor


@contextmanager
def tapped(layers: Mapping[str, QuantizableLayer]) -> Iterator[list[Tap]]:
    """Yields a list to which each execution of a layer is added while the context lasts.

    The layer's output is able to take a gradient.
    """
    taps: list[Tap] = []

    def hook(
        name: str, module: QuantizableLayer, args: tuple[Tensor, ...], output: Tensor
    ) -> Tensor:
        if torch.is_grad_enabled() and not output.requires_grad:
            output = output.detach().requires_grad_()
        taps.append(Tap(name, module, args[0], output))
        return output

    handles = [
        module.register_forward_hook(lambda m, args, out, name=name: hook(name, m, args, out))
        for name, module in layers.items()
    ]
    try:
        yield taps
    finally:
        for handle in handles:
            handle.remove()
