"""Records what the layers inside a block read and give while it runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from qvla_offline.blockwise.schedule import Arguments
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


def pull_through(
    block: nn.Module,
    arguments: Arguments,
    layers: Mapping[str, QuantizableLayer],
    cotangents: Sequence[Tensor] | Tensor,
) -> tuple[list[tuple[Tensor, ...]], list[tuple[Tap, list[Tensor]]]]:
    """Runs a block again and takes the cotangents of its output back through it.

    Returns, for each cotangent, the gradients of those arguments that take one, and each execution
    of one of `layers` with the gradients of its output, one a cotangent.
    """
    given = [tensor.detach().requires_grad_(tensor.requires_grad) for tensor in arguments.tensors]
    inputs = [tensor for tensor in given if tensor.requires_grad]
    with torch.enable_grad(), tapped(layers) as taps:
        output = arguments.call(block, given)
    sought = [*inputs, *(tap.output for tap in taps)]
    pulled = [
        torch.autograd.grad(output, sought, cotangent, retain_graph=True, materialize_grads=True)
        for cotangent in cotangents
    ]
    count = len(inputs)
    of_taps = [(tap, [grads[place] for grads in pulled]) for place, tap in enumerate(taps, count)]
    return [grads[:count] for grads in pulled], of_taps
