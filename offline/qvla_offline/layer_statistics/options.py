"""The options of a recipe's section `statistics`, and of `qvla statistics`. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from qvla_offline.option_fields import option

STATISTICS_OPTIONS = (
    "max_samples",
    "probes",
    "seed",
    "memory_gb",
    "device",
    "skip_bad_lines",
    "unnorm_key",
    "robot_path",
)


@dataclass(frozen=True)
class Gathering:
    """A recipe's section `statistics`: what it takes from the calibration set.

    Its data, memory and device are those of the section `sensitivity`.
    """

    max_samples: int = option(32, "observations to use")
    probes: int = option(4, "backward passes per sample")
    seed: int = option(0, "seed of the probes")
