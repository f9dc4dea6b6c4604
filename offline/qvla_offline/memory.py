"""Measures the peak memory of the process."""

from __future__ import annotations

import resource
import sys
from pathlib import Path


def peak_memory_bytes() -> int:
    """Returns the largest resident set so far, pages of mapped files included."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def peak_memory() -> str:
    """Returns the peak memory in words, with that of the GPU if one was used."""
    text = f"peak memory {peak_memory_bytes() / 1e9:.2f} GB"
    torch = sys.modules.get("torch")  # not worth importing for a process that has used none
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        text += f", on the GPU {torch.cuda.max_memory_allocated() / 1e9:.2f} GB"
    return text


def available_memory_bytes() -> float:
    """Returns the memory that the machine can still give; infinity where it does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return float("inf")
    found = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return 1024 * found[0] if found else float("inf")
