"""Fixtures of several folders: the reference's numbers and one LIBERO scene.

A scene takes seconds to build.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from qvla_ros.simulation.libero import LiberoTask


@pytest.fixture(scope="session")
def vectors() -> dict:
    """What the reference implementation computed; see `provenance` in the file."""
    return json.loads((Path(__file__).parent / "data" / "openvla_vectors.json").read_text())


@pytest.fixture(scope="session")
def milk_task() -> Iterator[LiberoTask]:
    """libero_object task 7, 'pick up the milk and place it in the basket', 128-pixel cameras."""
    with LiberoTask("libero_object", 7, camera_size=128) as task:
        yield task
