"""Faults do what is written, when it is written, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qvla_ros.errors import QvlaError
from qvla_ros.simulation.fake import FakeTask
from qvla_ros.simulation.faults import Fault, FaultInjector, Sensed, parse_faults
from qvla_ros.simulation.libero import LiberoObservation

SECOND = 10**9


def frame(value: int) -> LiberoObservation:
    """An observation whose pixels are all `value`."""
    observation = FakeTask("fake", 0, 16).reset(0)
    return replace(
        observation,
        images={name: np.full((16, 16, 3), value, np.uint8) for name in observation.images},
    )


def sense(injector: FaultInjector, value: int, time_s: float) -> Sensed:
    return injector.sense(frame(value), round(time_s * SECOND))


def test_the_written_form_says_kind_camera_begin_and_end() -> None:
    assert parse_faults(
        ["drop_camera:agentview@2.0+0.5", "", "kill@3", " delay_camera@.5+1=0.1 "]
    ) == (
        Fault("drop_camera", "agentview", 2 * SECOND, 5 * SECOND // 2),
        Fault("kill", None, 3 * SECOND, None),
        Fault("delay_camera", None, SECOND // 2, 3 * SECOND // 2, SECOND // 10),
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("drop_camera", "KIND"),
        ("drop_camera@-1", "KIND"),
        ("drop_camera@1+", "KIND"),
        ("drop@1", "one of drop_camera"),
        ("drop_camera:left@1", "one of the cameras agentview, wrist"),
        ("kill:wrist@1", "no camera"),
        ("nan_proprioception:wrist@1", "no camera"),
        ("delay_camera@1", "=DELAY"),
        ("freeze_camera@1=2", "=DELAY"),
        ("drop_camera@1+0", "a duration above zero"),
        ("kill@1+1", "none after kill"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_an_example(text: str, expected: str) -> None:
    with pytest.raises(QvlaError, match=expected) as caught:
        parse_faults([text])
    assert "drop_camera:agentview@2.0+0.5" in str(caught.value)


@given(st.lists(st.floats(0, 10), min_size=1, max_size=20))
def test_without_faults_everything_is_sensed_as_it_is(times_s: list[float]) -> None:
    injector = FaultInjector(())
    for time_s in sorted(times_s):
        observation = frame(1)
        assert injector.sense(observation, round(time_s * SECOND)) == Sensed(observation, {})
    assert not injector.counts


def test_a_dropped_camera_is_missing_from_its_begin_until_before_its_end() -> None:
    injector = FaultInjector(parse_faults(["drop_camera:wrist@1+0.5"]))
    seen = {
        time_s: set(sense(injector, 1, time_s).observation.images)
        for time_s in (0.95, 1.0, 1.45, 1.5)
    }
    both = {"agentview", "wrist"}
    assert seen == {0.95: both, 1.0: {"agentview"}, 1.45: {"agentview"}, 1.5: both}
    assert injector.counts == {"drop_camera": 2}


def test_a_frozen_camera_repeats_the_frame_before_it_froze_as_if_it_were_new() -> None:
    injector = FaultInjector(parse_faults(["freeze_camera:agentview@1+1"]))
    values = []
    for value, time_s in enumerate((0.5, 0.9, 1.0, 1.5, 1.95, 2.0)):
        sensed = sense(injector, value, time_s)
        assert sensed.answerable
        assert not sensed.image_ages_ns
        images = sensed.observation.images
        values.append((int(images["agentview"][0, 0, 0]), int(images["wrist"][0, 0, 0])))
    assert values == [(0, 0), (1, 1), (1, 2), (1, 3), (1, 4), (5, 5)]


def test_a_delayed_camera_shows_the_newest_frame_that_is_old_enough_with_its_age_or_none() -> None:
    injector = FaultInjector(parse_faults(["delay_camera@0=0.3"]))
    shown = {}
    for value, time_s in enumerate((0.0, 0.2, 0.4, 0.5, 0.6)):
        sensed = sense(injector, value, time_s)
        image = sensed.observation.images.get("agentview")
        shown[time_s] = (
            None
            if image is None
            else (int(image[0, 0, 0]), sensed.image_ages_ns["agentview"] / SECOND)
        )
    assert shown == {0.0: None, 0.2: None, 0.4: (0, 0.4), 0.5: (1, 0.3), 0.6: (1, 0.4)}


def test_an_image_of_the_wrong_size_has_half_its_height() -> None:
    sensed = sense(FaultInjector(parse_faults(["wrong_size_image:wrist@0"])), 1, 0)
    assert {name: image.shape for name, image in sensed.observation.images.items()} == {
        "agentview": (16, 16, 3),
        "wrist": (8, 16, 3),
    }
    assert not sensed.answerable


def test_proprioception_that_is_not_a_number_is_so_until_its_end() -> None:
    injector = FaultInjector(parse_faults(["nan_proprioception@0+1"]))
    sensed = sense(injector, 1, 0.9)
    assert np.isnan(sensed.observation.joint_positions_rad).all()
    assert np.isnan(sensed.observation.eef_position_m).all()
    assert not sensed.answerable
    assert np.isfinite(sense(injector, 1, 1.0).observation.gripper_positions_m).all()
    assert injector.counts == {"nan_proprioception": 1}


def test_death_comes_at_its_time_and_stays() -> None:
    injector = FaultInjector(parse_faults(["kill@1"]))
    assert [injector.kills_at(time_ns) for time_ns in (0, SECOND - 1, SECOND, 2 * SECOND)] == [
        False,
        False,
        True,
        True,
    ]
    assert sense(injector, 1, 2).faults == ()
