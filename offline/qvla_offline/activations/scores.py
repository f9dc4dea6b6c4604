"""Scores the inputs of each layer by the actions: E ||A(x + dx) - A(x)||^2, to first order.

dx is what rounding the inputs x of one layer changes, the weights being float. With W the layer's
weight, dx . grad_x <r, A> = sum_t grad_y[t] (W dx)[t] for random signs r, as in sensitivity.action,
so one forward pass and a few backward passes a sample score every layer. Units: squared normalised
actions, summed over the chunk, averaged over samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from qvla_offline.activations.rounding import InputRounding, rounding_inputs
from qvla_offline.blockwise.passes import BlockPass, Blockwise, Pull
from qvla_offline.blockwise.schedule import Arguments
from qvla_offline.blockwise.taps import Tap, pull_through
from qvla_offline.blockwise.weights import members_of
from qvla_offline.checkpoints.targets import QuantizableLayer
from qvla_offline.layer_statistics.gather import input_rows, output_rows
from qvla_offline.sensitivity.action import Probing, random_signs
from qvla_offline.sensitivity.hessian import flat_weight
from qvla_ros.progress import track

Roundings = Sequence[Mapping[str, InputRounding]]  # ways to round, {layer: how}


def activation_scores(
    policy: Blockwise,
    layers: Mapping[str, QuantizableLayer],
    samples: Sequence[Any],
    roundings: Roundings,
    probing: Probing,
) -> dict[str, Tensor]:
    """Returns {layer: float32 [len(roundings)]} of the layers that a sample reaches.

    policy: one sample -> normalised actions, differentiable. Each of `roundings` names all layers.
    """
    members = members_of(policy.weights.blocks, layers)
    # {(layer, sample): [probes, roundings]}, over all executions of the layer
    moved: dict[tuple[str, int], Tensor] = {}

    @contextmanager
    def pulling(index: int, name: str, block: nn.Module) -> Iterator[Pull]:
        here = {n: layers[n] for n in members.get(name, [])}

        def pull(sample: int, arguments: Arguments, cotangents: Tensor) -> list[tuple[Tensor, ...]]:
            of_inputs, of_taps = pull_through(block, arguments, here, cotangents)
            for tap, gradients in of_taps:
                key = (tap.name, sample)
                change = _moved(tap, [way[tap.name] for way in roundings], gradients)
                moved[key] = moved[key] + change if key in moved else change
            return of_inputs

        yield pull

    with BlockPass(policy, samples, keep=True) as run:
        run.forward("activations, forward")
        run.backward(
            "activations, backward",
            members,
            lambda sample, actions: random_signs(actions, sample, probing),
            pulling,
        )
    reached = {name for name, _ in moved}
    return {
        name: torch.stack(
            [moved[name, n].square().mean(dim=0) for n in range(len(samples)) if (name, n) in moved]
        ).sum(dim=0)
        / len(samples)
        for name in layers
        if name in reached
    }


@torch.no_grad()
def measured_activation_scores(
    policy: Blockwise,
    layers: Mapping[str, QuantizableLayer],
    samples: Sequence[Any],
    roundings: Roundings,
) -> dict[str, Tensor]:
    """Measures what activation_scores estimates, {layer: float32 [len(roundings)]}.

    The policy runs once for each sample, layer and way to round.
    """
    with policy.filled_on_demand():
        reference = [policy.run(sample).double() for sample in samples]

        def error(name: str, way: Mapping[str, InputRounding]) -> float:
            with rounding_inputs(layers, {name: way[name]}):
                moved = [policy.run(sample).double() for sample in samples]
            pairs = zip(moved, reference, strict=True)
            return sum(float((a - b).square().sum()) for a, b in pairs) / len(samples)

        names = track(layers, "activations, exact", total=len(layers))
        return {name: torch.tensor([error(name, way) for way in roundings]) for name in names}


@torch.no_grad()
def _moved(tap: Tap, roundings: Sequence[InputRounding], gradients: Sequence[Tensor]) -> Tensor:
    """How far each probe moves in one execution of a layer, [probes, roundings]."""
    layer = tap.module
    x = tap.input.detach()
    weight = flat_weight(layer)
    changes = [input_rows(layer, rounding(layer, x) - x) @ weight.T for rounding in roundings]
    felt = [output_rows(layer, gradient) for gradient in gradients]
    return torch.stack([torch.stack([(g * c).sum() for c in changes]) for g in felt]).float()
