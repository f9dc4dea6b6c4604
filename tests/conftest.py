"""What tests of several folders share: one LIBERO scene, since building it takes seconds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from qvla_ros.simulation.libero import LiberoTask


@pytest.fixture(scope="session")
def milk_task() -> Iterator[LiberoTask]:
    """libero_object task 7, 'pick up the milk and place it in the basket', with 128-pixel cameras."""
    pytest.importorskip("libero")
    with LiberoTask("libero_object", 7, camera_size=128) as task:
        yield task
