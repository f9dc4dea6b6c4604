"""The reaction time of an arm is found in a recording of commands and poses, and doubted aloud."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qvla_ros.cli.main import main
from qvla_ros.errors import QvlaError
from qvla_ros.messages.kinds import POSE
from qvla_ros.recording.reaction_time import (
    TWIST,
    Positions,
    Velocities,
    estimate_reaction,
)

PERIOD_S = 0.02


def recording(
    delay_s: float, lag_s: float, gain: float = 1.0, noise_m: float = 0.0, seconds: float = 20.0
) -> tuple[Velocities, Positions]:
    """An arm that is sent slow random velocities, 50 times a second."""
    rng = np.random.default_rng(7)
    times_s = PERIOD_S * np.arange(round(seconds / PERIOD_S))
    pulses = rng.uniform(0.5, 3.0, (6, 3))
    velocities = 0.05 * np.sin(times_s[:, None, None] * pulses).sum(axis=1)
    fine_s = np.arange(0.0, seconds, 0.002)
    asked = gain * velocities[np.minimum((fine_s / PERIOD_S).astype(int), len(times_s) - 1)]
    share = 1.0 if lag_s == 0.0 else 1.0 - np.exp(-0.002 / lag_s)
    moving = np.zeros(3)
    place = np.zeros(3)
    places = []
    for each in asked:
        moving = moving + share * (each - moving)
        place = place + 0.002 * moving
        places.append(place)
    kept = slice(None, None, 5)
    noisy = np.array(places)[kept] + rng.normal(0.0, noise_m, (len(fine_s[kept]), 3))
    return Velocities(times_s, velocities), Positions(fine_s[kept] + delay_s, noisy)


@pytest.mark.parametrize(
    ("delay_s", "lag_s", "gain", "noise_m"),
    [(0.0, 0.0, 1.0, 0.0), (0.1, 0.0, 1.0, 0.0), (0.05, 0.05, 0.9, 0.001), (0.1, 0.1, 1.0, 0.0)],
)
def test_delay_and_lag_together_are_found(
    delay_s: float, lag_s: float, gain: float, noise_m: float
) -> None:
    found = estimate_reaction(*recording(delay_s, lag_s, gain, noise_m))
    assert found.reaction_time_s == pytest.approx(delay_s + lag_s, abs=0.02)
    assert found.gain == pytest.approx(gain, abs=0.05)
    assert found.unexplained < 0.02


def test_a_motion_that_was_not_sent_is_no_estimate() -> None:
    sent, measured = recording(0.1, 0.0)
    other = np.cumsum(np.random.default_rng(1).normal(0.0, 0.01, measured.positions.shape), axis=0)
    assert estimate_reaction(sent, Positions(measured.times_s, other)).unexplained > 0.5


def test_too_short_a_recording_and_one_at_rest_are_refused() -> None:
    with pytest.raises(QvlaError, match="record a longer motion"):
        estimate_reaction(*recording(0.1, 0.0, seconds=2.0))
    sent, measured = recording(0.1, 0.0)
    still = Velocities(sent.times_s, 0.0 * sent.velocities)
    with pytest.raises(QvlaError, match="to and fro"):
        estimate_reaction(still, measured)


@pytest.fixture
def bag(message: Callable[..., Any], write: Callable[..., Path], definitions: Any) -> Path:
    """A bag of an arm that is 0.1 s late."""
    types = definitions.store.types
    sent, measured = recording(0.1, 0.0)
    vector = types["geometry_msgs/msg/Vector3"]
    twist = types["geometry_msgs/msg/Twist"]
    point = types["geometry_msgs/msg/Point"]
    pose = types["geometry_msgs/msg/Pose"]
    upright = types["geometry_msgs/msg/Quaternion"](0.0, 0.0, 0.0, 1.0)
    still = vector(0.0, 0.0, 0.0)
    found = []
    for at_s, velocity in zip(sent.times_s, sent.velocities.tolist(), strict=True):
        content = message(TWIST, 0, "base", twist=twist(vector(*velocity), still))
        found.append(("/servo/twist", content, round(1e9 * (at_s + 1000.0))))
    for at_s, place in zip(measured.times_s, measured.positions.tolist(), strict=True):
        content = message(POSE, 0, "base", pose=pose(point(*place), upright))
        found.append(("/tcp_pose", content, round(1e9 * (at_s + 1000.0))))
    return write("arm", sorted(found, key=lambda each: each[2]))


def test_the_verb_prints_the_parameter(bag: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reaction_time", str(bag)]) == 0
    assert capsys.readouterr().out.startswith("reaction_time_s: 0.1")


def test_a_topic_that_is_not_there_is_named_with_those_that_are(
    bag: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reaction_time", str(bag), "--pose_topic", "/ee"]) == 2
    assert "/tcp_pose" in capsys.readouterr().err
