"""Refuses a policy that does not fit into memory while it is trained as a whole."""

from __future__ import annotations

from pathlib import Path

import torch

from qvla_offline.checkpoints.io import empty_policy
from qvla_offline.memory import available_memory_bytes
from qvla_ros.errors import QvlaError

# float32 weights, codes, restored weights and their gradients
BYTES_PER_WEIGHT = 4 + 4 + 4 + 4


def require_memory(checkpoint_path: Path, device: str) -> None:
    """Raises QvlaError if weights, codes and gradients alone exceed what `device` has free.

    The activations of a few samples come on top.
    """
    weights = sum(parameter.numel() for parameter in empty_policy(checkpoint_path).parameters())
    needed = weights * BYTES_PER_WEIGHT
    free = free_bytes(device)
    if needed > free:
        raise QvlaError(
            "training",
            f"{weights / 1e9:.2f} billion weights: {needed / 1e9:.1f} GB and activations",
            f"a policy that fits into the free memory of {device}, {free / 1e9:.1f} GB",
            "train block by block with --by_block (by_block: true in a recipe)",
        )


def free_bytes(device: str) -> float:
    """The free memory of a torch device."""
    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return available_memory_bytes()
