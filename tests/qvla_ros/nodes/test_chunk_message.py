"""A chunk is executed only if it is whole, finite and meant for this robot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qvla.msg import ActionChunk
from std_msgs.msg import Header

from qvla_ros.bundle import load_bundle
from qvla_ros.errors import QvlaError
from qvla_ros.nodes.chunk_message import chunk_actions, chunk_message, stamp_message, stamp_ns
from qvla_ros.observation import Observation
from qvla_ros.simulation.specification import (
    ACTION_KIND,
    ACTION_NAMES,
    ACTION_UNITS,
    CONTROL_PERIOD_S,
    POSE_FRAME,
)

ROBOT = (ACTION_KIND, ACTION_NAMES, ACTION_UNITS, POSE_FRAME, CONTROL_PERIOD_S)
ACTIONS = np.arange(28, dtype=float).reshape(4, 7) / 28


@pytest.fixture
def chunk(bundle_dir: Path) -> ActionChunk:
    stamps_ns = {"/camera": 1_500_000_000, "/joint_states": 1_490_000_000}
    observation = Observation({}, np.zeros(0), "go", max(stamps_ns.values()), stamps_ns)
    return chunk_message(load_bundle(bundle_dir), ACTIONS, observation, True)


def test_actions_survive_the_message(chunk: ActionChunk) -> None:
    np.testing.assert_array_equal(chunk_actions(chunk, "/chunk", *ROBOT), ACTIONS)
    assert stamp_ns(chunk.header.stamp) == 1_500_000_000
    assert dict(zip(chunk.input_topics, map(stamp_ns, chunk.input_stamps), strict=True)) == {
        "/camera": 1_500_000_000,
        "/joint_states": 1_490_000_000,
    }


def test_stamps_survive_the_message() -> None:
    for nanoseconds in (0, 1, 999_999_999, 1_000_000_000, 1_795_411_554_912_386_209):
        assert stamp_ns(stamp_message(nanoseconds)) == nanoseconds


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("kind", "joint_position", "kind of the chunk on /chunk: got joint_position"),
        ("names", ["x"], "names of the chunk"),
        ("units", ["m"] * 7, "units of the chunk"),
        ("header", Header(frame_id="tool0"), "frame_id of the chunk"),
        ("data", [0.0] * 27, "got 27; expected 28"),
        ("horizon", 0, "data of the chunk"),
        ("step_dt", 0.1, "a period of 0.05 s"),
        ("step_dt", float("nan"), "a period of 0.05 s"),
        ("data", [float("nan")] + [0.0] * 27, "not finite"),
        ("data", [0.0] * 27 + [float("inf")], "not finite"),
    ],
)
def test_anything_else_is_refused_by_field(
    chunk: ActionChunk, field: str, value: Any, message: str
) -> None:
    setattr(chunk, field, value)
    with pytest.raises(QvlaError, match=message):
        chunk_actions(chunk, "/chunk", *ROBOT)
