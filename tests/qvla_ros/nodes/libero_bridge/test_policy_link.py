"""A robot's link to a policy that the test plays: what it sends again, which answers it takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from qvla.msg import ActionChunk
from sensor_msgs.msg import Image

from qvla_ros.nodes import qos
from qvla_ros.nodes.chunk_message import stamp_message, stamp_ns
from qvla_ros.nodes.libero_bridge import policy_link
from qvla_ros.nodes.libero_bridge.policy_link import PolicyDisarmed, PolicyLink
from qvla_ros.simulation.fake import FakeTask
from qvla_ros.simulation.faults import Sensed
from qvla_ros.simulation.specification import (
    ACTION_KIND,
    ACTION_NAMES,
    ACTION_UNITS,
    CONTROL_PERIOD_S,
    POSE_FRAME,
)

NOW_NS = 5_000_000_000  # a clock that stands still


def chunk(
    stamp: int, armed: bool = True, latency_ms: dict[str, float] | None = None
) -> ActionChunk:
    message = ActionChunk(
        kind=ACTION_KIND, names=list(ACTION_NAMES), units=list(ACTION_UNITS), horizon=1, armed=armed
    )
    message.header.stamp = stamp_message(stamp)
    message.header.frame_id = POSE_FRAME
    message.step_dt = CONTROL_PERIOD_S
    message.data = [0.0] * 7
    message.instruction = "go"
    latency_ms = (
        {"preprocess": 1.0, "inference": 8.0, "postprocess": 2.0}
        if latency_ms is None
        else latency_ms
    )
    message.latency_names = list(latency_ms)
    message.latency_ms = list(latency_ms.values())
    return message


@pytest.fixture
def line(robot: Any, monkeypatch: pytest.MonkeyPatch) -> Callable:
    """line(answer) -> (link, stamps): `answer(stamps so far)` gives the policy's chunk for the last
    image, or None.
    """
    monkeypatch.setattr(policy_link, "RESEND_PERIOD_S", 0.05)

    def connect(answer: Callable[[list[int]], ActionChunk | None]) -> tuple[PolicyLink, list[int]]:
        stamps: list[int] = []
        chunks = robot.node.create_publisher(ActionChunk, "/x/policy/action_chunk", qos.COMMAND)

        def on_image(message: Image) -> None:
            stamps.append(stamp_ns(message.header.stamp))
            reply = answer(stamps)
            if reply is not None:
                chunks.publish(reply)

        robot.node.create_subscription(Image, "/x/camera/wrist/image_raw", on_image, qos.SENSOR)
        link = PolicyLink(robot.node, "x", robot.spin, stamps_ns=lambda: NOW_NS)
        robot.wait(lambda: robot.node.count_publishers("/x/policy/action_chunk") > 0, "the policy")
        return link, stamps

    return connect


def sensed(ages_ns: dict[str, int] | None = None) -> Sensed:
    return Sensed(
        FakeTask("fake", 0, 16).reset(0),
        ages_ns or {},
        () if ages_ns is None else ("delay_camera",),
    )


def test_an_observation_that_is_sent_again_has_a_new_stamp_but_was_taken_when_it_was(
    line: Callable,
) -> None:
    link, stamps = line(lambda stamps: chunk(stamps[-1]) if len(stamps) > 2 else None)
    answer = link.request(sensed(), "go", 30.0)
    assert stamps[0] == NOW_NS
    assert len(set(stamps)) == len(stamps) >= 3
    assert answer.stamp_ns == NOW_NS
    assert answer.computing_s == pytest.approx(0.011)
    assert answer.inference_ms == 8.0
    np.testing.assert_array_equal(answer.actions, np.zeros((1, 7)))


def test_an_answer_to_a_late_image_is_as_old_as_the_image(line: Callable) -> None:
    link, stamps = line(lambda stamps: chunk(stamps[-1]))
    answer = link.offer(sensed({"wrist": 300_000_000}), "go", 30.0)
    assert answer.stamp_ns == stamps[0] == NOW_NS - 300_000_000


def test_what_is_not_answered_is_not_waited_for(line: Callable) -> None:
    link, stamps = line(lambda stamps: chunk(1))  # an answer to something else
    assert link.offer(sensed({}), "go", 0.3) is None
    assert stamps


def test_a_chunk_that_does_not_say_how_long_it_took_has_no_latency(line: Callable) -> None:
    link, _ = line(lambda stamps: chunk(stamps[-1], latency_ms={"inference": 3.0}))
    assert np.isnan(link.request(sensed(), "go", 30.0).computing_s)


def test_a_disarmed_chunk_is_recognised(line: Callable) -> None:
    link, _ = line(lambda stamps: chunk(stamps[-1], armed=False))
    with pytest.raises(PolicyDisarmed, match="disarmed"):
        link.request(sensed(), "go", 30.0)
