"""Which options of a scoring run apply to the gathering of statistics. Imports no torch."""

from __future__ import annotations

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
