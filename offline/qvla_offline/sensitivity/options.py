"""The options of a recipe's section `sensitivity` and of `qvla sensitivity`: how to score."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from qvla_offline.option_fields import option, require_choices, step_values
from qvla_offline.quantization.scheme import BIT_WIDTHS, QuantizationScheme
from qvla_ros.errors import QvlaError

_USUAL_BITS = {"action": (2, 4, 8), "hessian": (0, 2, 4, 8)}


@dataclass(frozen=True)
class Scoring:
    """Options of scoring; the defaults are those of the released script, where it has the option.

    bits: those of `method` where none are named. With `action` that leaves out 0 bits, which never
    won where they were measured (docs/measured.md); `hessian` has them, as the released script.
    check: channels to measure exactly and compare; refine: so many top channels get measured
    scores.
    """

    method: Literal["action", "hessian"] = option(
        "action", "action, or hessian: the released proxy"
    )
    bits: tuple[int, ...] = option(
        (), "bit-widths to score (default: 2,4,8; method hessian: 0,2,4,8)"
    )
    max_samples: int = option(32, "observations to use")
    percdamp: float = option(0.01, "hessian: damping")
    probes: int = option(4, "action: backward passes per sample")
    seed: int = option(0, "action: seed of the probes")
    memory_gb: float = option(
        4.0, "memory for what is kept between blocks, GB; the block at work comes on top"
    )
    check: int = option(0, "action: measure N channels exactly, compare", "N")
    refine: int = option(0, "action: measure the N top channels exactly", "N")
    skip_bad_lines: bool = option(False, "report bad lines of a .jsonl file and go on")
    device: str = option("cpu", "torch device")

    def __post_init__(self) -> None:
        require_choices(self)
        if not self.bits:
            object.__setattr__(self, "bits", _USUAL_BITS[self.method])
        allowed = BIT_WIDTHS[:-1] if self.method == "action" else (0, *range(2, 16))
        # at 16 the score is 0
        object.__setattr__(self, "bits", tuple(sorted(set(self.bits) - {16})))
        if not self.bits or not set(self.bits) <= set(allowed):
            raise QvlaError(
                "bits",
                list(self.bits),
                f"some of {list(allowed)}",
                "choose with --bits, e.g. 0,2,4,8",
            )
        for key in ("max_samples", "probes", "memory_gb"):
            if not 0 < getattr(self, key) < math.inf:
                raise QvlaError(key, getattr(self, key), "a number above 0", f"raise --{key}")
        for key in ("check", "refine", "seed", "percdamp"):
            if not 0 <= getattr(self, key) < math.inf:
                raise QvlaError(
                    key, getattr(self, key), "a number from 0 on", f"leave out --{key}, or raise it"
                )
        for key in ("check", "refine"):
            if self.method == "hessian" and getattr(self, key):
                raise QvlaError(
                    key,
                    f"{getattr(self, key)} with method hessian",
                    "method action, which measures channels exactly",
                    f"leave out --{key}, or use --method action",
                )


@dataclass(frozen=True)
class SensitivityOptions(Scoring):
    """Options of scoring, with its data and storage."""

    unnorm_key: str | None = option(
        None, "dataset whose statistics apply (default: the only one that the checkpoint holds)"
    )
    robot_path: str | None = option(
        None,
        "robot: YAML like config/robots/libero/trained_on.yaml, or its folder (default: LIBERO's "
        "arm)",
    )
    statistics: str | None = option(
        None, "directory of `qvla statistics`; the quantizer is then guided_gptq by default"
    )
    scheme: QuantizationScheme = field(default_factory=QuantizationScheme)

    def described(self) -> dict[str, object]:
        """Returns all options as files hold them; statistics are known by their hash instead."""
        described = step_values(self) | {"scheme": self.scheme.described()}
        del described["statistics"]
        return described

    def identity(self) -> dict[str, object]:
        """Returns the options that change the numbers of the estimate."""
        kept = {
            k: v
            for k, v in self.described().items()
            if k not in ("memory_gb", "check", "device", "skip_bad_lines")
        }
        for unused in (
            ("percdamp",) if self.method == "action" else ("probes", "seed", "refine", "scheme")
        ):
            del kept[unused]
        return kept | {"bits": list(self.bits)}
