"""Rounds what layers read, by hooks that last as long as a context."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from qvla_offline.activations.options import ActivationScheme
from qvla_offline.checkpoints.targets import QuantizableLayer
from qvla_offline.finite import require_finite
from qvla_offline.quantization.quantizer import GATHER, LayerStatistics
from qvla_offline.sensitivity.store import OVERFLOW
from qvla_ros.errors import QvlaError


@dataclass(frozen=True)
class InputRounding:
    """How the inputs of one layer are rounded.

    limit: the largest magnitude, None takes that of each token (of each image before a
    convolution). input_scales: float [C]; what is rounded is x / input_scales, as the weights are
    made for it (AWQ, SmoothQuant). A convolution's inputs are rounded as they are.
    """

    bits: int
    limit: float | None = None
    input_scales: Tensor | None = None

    def __call__(self, layer: QuantizableLayer, x: Tensor) -> Tensor:
        """Returns the inputs `x` of `layer` as they come back from codes, in their shape."""
        if isinstance(layer, nn.Conv2d):
            return rounded(x, self.bits, self.limit, dims=(-3, -2, -1))
        if self.input_scales is None:
            return rounded(x, self.bits, self.limit, dims=(-1,))
        scales = self.input_scales.to(x)
        return rounded(x / scales, self.bits, self.limit, dims=(-1,)) * scales


def rounded(x: Tensor, bits: int, limit: float | None, dims: tuple[int, ...]) -> Tensor:
    """Rounds `x` to symmetric codes of `bits`; 16 bits leave it as it is.

    limit: of magnitudes, what exceeds it is clipped; None: the largest over `dims`.
    """
    if bits == 16:
        return x
    highest = 2 ** (bits - 1) - 1
    largest = x.abs().amax(dim=dims, keepdim=True) if limit is None else x.new_tensor(limit)
    scale = (largest / highest).clamp(min=torch.finfo(x.dtype).tiny)
    return (x / scale).round().clamp(-highest, highest) * scale


def input_roundings(
    scheme: ActivationScheme,
    layers: Mapping[str, QuantizableLayer],
    statistics: Mapping[str, LayerStatistics],
    input_scales: Mapping[str, Tensor],
) -> dict[str, InputRounding]:
    """Returns {layer: how its inputs are rounded} of the layers that have fewer than 16 bits.

    statistics: for static scales; a layer that no calibration sample has reached keeps its inputs.
    input_scales: of the layers that have some. QvlaError where statistics lack the magnitudes.
    """
    found = {}
    static = scheme.activation_scaling == "static"
    if static and not statistics:
        raise QvlaError(
            "activation_scaling",
            "static without statistics",
            "the largest magnitudes of the inputs on the calibration samples",
            "name the directory of `qvla statistics` with --statistics, or use dynamic",
        )
    for name, bits in scheme.widths(layers).items():
        if bits == 16 or (static and name not in statistics):
            continue
        scales = None if isinstance(layers[name], nn.Conv2d) else input_scales.get(name)
        limit = _limit(name, statistics[name], scales) if static else None
        found[name] = InputRounding(bits, limit, scales)
    return found


def _limit(name: str, statistics: LayerStatistics, scales: Tensor | None) -> float:
    if statistics.input_maximum is None:
        needed = "the largest magnitudes of the layer's inputs, for static scales"
        raise QvlaError(f"statistics of {name}", "no input_maximum", needed, GATHER)
    maximum = statistics.input_maximum
    return float((maximum if scales is None else maximum / scales.to(maximum)).max())


@contextmanager
def rounding_inputs(
    layers: Mapping[str, QuantizableLayer], roundings: Mapping[str, InputRounding]
) -> Iterator[None]:
    """Rounds the inputs of the layers named in `roundings` while the context lasts.

    QvlaError naming the layer whose inputs are not finite.
    """

    def hook(name: str, layer: QuantizableLayer, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        require_finite(f"inputs of {name}", given[0], OVERFLOW)
        return (roundings[name](layer, given[0]), *given[1:])

    handles = [
        layers[name].register_forward_pre_hook(
            lambda layer, given, name=name: hook(name, layer, given)
        )
        for name in roundings
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
