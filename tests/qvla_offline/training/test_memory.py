"""A policy that cannot be trained in memory is refused with the memory that it needs."""

from __future__ import annotations

import pytest

from qvla_offline.checkpoints.io import empty_policy
from qvla_offline.checkpoints.random_checkpoint import write_random_checkpoint
from qvla_offline.memory import available_memory_bytes
from qvla_offline.training import memory
from qvla_ros.errors import QvlaError


def test_the_memory_that_is_missing_is_named(tmp_path, monkeypatch):
    path = write_random_checkpoint(tmp_path / "tiny")
    weights = sum(parameter.numel() for parameter in empty_policy(path).parameters())
    needed = 16 * weights
    monkeypatch.setattr(memory, "free_bytes", lambda device: needed)
    memory.require_memory(path, "cpu")
    monkeypatch.setattr(memory, "free_bytes", lambda device: needed - 1)
    wanted = f"^training: got .*{needed / 1e9:.1f} GB.*memory of cpu.*by_block"
    with pytest.raises(QvlaError, match=wanted):
        memory.require_memory(path, "cpu")


def test_the_machine_says_what_it_has_left():
    assert available_memory_bytes() > 1e6
