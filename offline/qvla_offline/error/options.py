"""The options of a recipe's section `error`: on what its result is measured. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from qvla_offline.option_fields import option
from qvla_ros.errors import QvlaError


@dataclass(frozen=True)
class Measurement:
    """A recipe's section `error`.

    observations: None for samples of the calibration set that no other step reads.
    """

    observations: str | None = option(None, "observations that no step of the recipe reads")
    max_samples: int = option(128, "observations to measure on; 0: do not measure")

    def __post_init__(self) -> None:
        if self.max_samples < 0:
            raise QvlaError(
                "max_samples",
                self.max_samples,
                "a number from 0 on",
                "set it to 0, or to 32 or more",
            )
