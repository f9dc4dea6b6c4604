"""How many bits the inputs of the quantized layers get, and by which scale. Imports no torch."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from qvla_offline.gates.layer_rules import allowed_widths, parse_rules
from qvla_offline.option_fields import option, require_choices
from qvla_ros.errors import QvlaError

ACTIVATION_BITS = (4, 8, 16)  # 16: as they are
_RULES = "activation_layer_bits"


@dataclass(frozen=True)
class ActivationScheme:
    """Codes are symmetric about 0: x is rounded to a multiple of largest |x| / (2^(bits - 1) - 1).

    activation_scaling: 'dynamic' takes the largest magnitude of each token (of each image before a
    convolution) as it runs, 'static' that of the whole tensor over the calibration samples, which
    `qvla statistics` notes; larger values are clipped. activation_layer_bits: rules as in
    gates.layer_rules, for layers that need more.
    """

    activation_bits: int = option(16, "bits of the quantized layers' inputs: 4, 8 or 16")
    activation_scaling: Literal["dynamic", "static"] = option(
        "dynamic", "dynamic: a scale a token as it runs; static: one a layer, by --statistics"
    )
    activation_layer_bits: str | None = option(
        None, "bits of inputs of layers by pattern, e.g. '*.fc2=8'", "RULES"
    )

    def __post_init__(self) -> None:
        require_choices(self)
        named = [rule.bits for rule in parse_rules(self.activation_layer_bits, _RULES)]
        others = sorted({self.activation_bits, *named} - set(ACTIVATION_BITS))
        if others:
            raise QvlaError(
                "activation_bits",
                others,
                f"some of {list(ACTIVATION_BITS)}",
                "choose with --activation_bits, e.g. --activation_bits 8",
            )

    @property
    def rounds(self) -> bool:
        """Whether the inputs of any layer are rounded."""
        return self.activation_bits < 16 or self.activation_layer_bits is not None

    def widths(self, layers: Collection[str]) -> dict[str, int]:
        """Returns {layer: bits of its inputs}: activation_bits, or the nearest that rules allow.

        QvlaError for a rule that matches no layer.
        """
        rules = parse_rules(self.activation_layer_bits, _RULES)
        allowed = allowed_widths(rules, layers, ACTIVATION_BITS, _RULES)
        asked = self.activation_bits
        return {
            name: min(widths, key=lambda b: (abs(b - asked), -b))
            for name, widths in allowed.items()
        }

    def label(self) -> str:
        """What is added to the name of a policy whose activations are rounded so."""
        layers = "" if self.activation_layer_bits is None else f", {self.activation_layer_bits}"
        return f", activations {self.activation_bits} bits {self.activation_scaling}{layers}"


AS_THEY_ARE = ActivationScheme()
