"""The options of a recipe's section `gates` and of `qvla gates`: how to spend how many bits."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

from qvla_offline.gates.costs import Pricing
from qvla_offline.gates.layer_rules import allowed_widths, parse_rules
from qvla_offline.option_fields import option, require_choices, required_option
from qvla_offline.quantization.scheme import (
    BIT_WIDTHS,
    STORED_BIT_WIDTHS,
    ComputeDtype,
    QuantizationScheme,
)
from qvla_ros.errors import QvlaError

MEASURED_SAMPLES = 64  # that compare gates, where the calibration set holds so many
_TARGET = "bits per weight, scales included; method released: bits per channel, without"


@dataclass(frozen=True)
class Spending:
    """The bits to spend, and the bit-widths to spend them on.

    target_avg_bits: bits per weight with scales (method 'released': per channel, without, as
    in the released scripts). cost: see Pricing. layer_bits: rules by pattern, see layer_rules.
    """

    target_avg_bits: float = option(4.0, _TARGET)
    bits: tuple[int, ...] = option(STORED_BIT_WIDTHS, "allowed bit-widths")
    method: Literal["optimal", "layerwise", "released"] = option(
        "optimal",
        "optimal: bits by channel; layerwise: one width a layer; or released: the greedy method of "
        "the released QVLA script",
    )
    cost: Literal["nominal", "stored"] = option(
        "stored",
        "stored: what the graph holds, or nominal: 2 bits and scales as the scheme has them",
    )
    layer_bits: str | None = option(
        None,
        "widths, floors and ceilings of layers by pattern, the last for exceptions, e.g. "
        "'language_model.*=4, vision_backbone.*>=4, *.fc2=16' (16 skips a layer)",
        "RULES",
        later=True,
    )

    def __post_init__(self) -> None:
        if parse_rules(self.layer_bits) and self.method == "released":
            raise QvlaError(
                "layer_bits",
                f"{self.layer_bits!r} with method {self.method}",
                "method optimal or layerwise, which keep to rules",
                "leave out --layer_bits, or use --method optimal",
            )


@dataclass(frozen=True)
class Budget(Spending):
    """The bits to spend, at the prices of a graph.

    compute_dtype: see Pricing. tile: the optimal method fills groups of rows up to multiples of it
    by promoting rows, within the budget; 1 promotes none.
    """

    compute_dtype: ComputeDtype = option("float32", "for --cost stored: type of the graph's scales")
    tile: int = option(8, "multiple to which the rows of one bit-width are filled up")

    def pricing(self, scheme: QuantizationScheme, cost: str | None = None) -> Pricing:
        """The prices of rows stored by `scheme`, at this budget's `cost` or at another `cost`."""
        return Pricing(scheme, cost or self.cost, self.compute_dtype)

    def widths(self, layers: Collection[str]) -> dict[str, tuple[int, ...]]:
        """Returns {layer: the bit-widths that it may have, ascending}, by bits and layer_bits.

        QvlaError for a rule that matches no layer, or leaves one without a width.
        """
        return allowed_widths(parse_rules(self.layer_bits), layers, self.bits)

    def every_width(self) -> set[int]:
        """The bit-widths that bits and layer_bits name; a floor or ceiling names none."""
        return {*self.bits, *(r.bits for r in parse_rules(self.layer_bits) if r.relation == "=")}

    def __post_init__(self) -> None:
        require_choices(self)
        super().__post_init__()
        unknown = sorted(set(self.bits) - set(BIT_WIDTHS))
        if unknown or not self.bits:
            raise QvlaError(
                "bits",
                list(self.bits),
                f"some of {list(BIT_WIDTHS)}",
                "choose with --bits, e.g. 2,4,8,16",
            )
        if not 0 <= self.target_avg_bits <= 16 or self.tile < 1:
            found = f"{self.target_avg_bits}, {self.tile}"
            fix = "set --target_avg_bits e.g. to 4.0 and --tile to 8"
            raise QvlaError("target_avg_bits, tile", found, "0 to 16 bits, and 1 row or more", fix)


@dataclass(frozen=True)
class GatesOptions(Spending):
    """A recipe's section `gates`; the prices come from its section `export`.

    bits: empty for those that are scored, and 16. joint_rounds: how often to measure how errors add
    up, and allocate again (see assign_jointly). measured_samples: on so many calibration samples
    behind those that were scored, the result is measured against one width everywhere and one width
    a layer (see gates.measured); None: on up to MEASURED_SAMPLES, if there are any.
    """

    target_avg_bits: float = required_option(_TARGET)
    bits: tuple[int, ...] = option(
        (), "allowed bit-widths (default: those that are scored, and 16)"
    )
    joint_rounds: int = option(0, "measure how errors add up, N times", "N")
    measured_samples: int | None = option(
        None,
        "measure these gates, one width everywhere and one width a layer on N calibration samples "
        f"behind the scored ones, and keep the best; 0: do not (default: up to {MEASURED_SAMPLES})",
        "N",
    )

    def budget(
        self, compute_dtype: ComputeDtype, scored: Sequence[int], tile: int | None = None
    ) -> Budget:
        """The budget for a graph that computes in `compute_dtype`.

        scored: bit-widths that have scores. tile: None is Budget's own.
        """
        spending = asdict(self)
        del spending["joint_rounds"]
        del spending["measured_samples"]
        spending["bits"] = self.bits or scored_bits(scored)
        budget = Budget(**spending, compute_dtype=compute_dtype)
        return budget if tile is None else replace(budget, tile=tile)


def scored_bits(scored: Sequence[int]) -> tuple[int, ...]:
    """Returns the widths to choose from where none are named: those scored and stored, and 16."""
    return tuple(b for b in STORED_BIT_WIDTHS if b == 16 or b in scored)
