"""Rates, quality of service, simulated time and instructions."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from rclpy.clock import ClockType, ROSClock
from rclpy.parameter import Parameter
from rclpy.qos import ReliabilityPolicy
from rclpy.time import Time
from std_msgs.msg import String

from qvla_ros.bundle import Bundle
from qvla_ros.errors import QvlaError
from qvla_ros.nodes import qos

PATIENCE_S = 30.0


def test_rates_and_ages_of_streams_are_told_by_topic(bench: Callable, bundle: Bundle) -> None:
    rig = bench()
    rig.observe(lambda: rig.send_images(bundle), lambda: rig.send_state(rig.fingers()))
    streams = {stream.topic: stream for stream in rig.inputs.streams()}
    assert set(streams) == {
        "/x/joint_states",
        "/x/ee_pose",
        *(f"/x/camera/{camera.name}/image_raw" for camera in bundle.cameras),
    }
    assert all(stream.rate_hz > 0 and 0 <= stream.age_s < PATIENCE_S for stream in streams.values())


def test_a_launch_file_can_make_an_input_reliable(bench: Callable) -> None:
    reliable = Parameter("qos_overrides./x/joint_states.subscription.reliability", value="reliable")
    rig = bench(parameters=[reliable])
    (joints,) = rig.node.get_subscriptions_info_by_topic("/x/joint_states")
    (pose,) = rig.node.get_subscriptions_info_by_topic("/x/ee_pose")
    assert joints.qos_profile.reliability == ReliabilityPolicy.RELIABLE
    assert pose.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT


def test_a_simulated_clock_that_leaps_makes_inputs_stale_and_one_that_goes_back_forgets_them(
    bench: Callable, bundle: Bundle
) -> None:
    rig = bench(parameters=[Parameter("use_sim_time", value=True)])
    clock = rig.node.get_clock()
    assert isinstance(clock, ROSClock)

    def observe_at(seconds: float) -> None:
        rig.stamp_ns = round(seconds * 1e9)
        clock.set_ros_time_override(Time(nanoseconds=rig.stamp_ns, clock_type=ClockType.ROS_TIME))
        count = len(rig.observations)
        rig.tell()
        rig.send_images(bundle)
        rig.send_state(rig.fingers())
        rig.wait(lambda: len(rig.observations) > count, f"an observation at {seconds} s")

    observe_at(100.0)
    clock.set_ros_time_override(Time(seconds=105, clock_type=ClockType.ROS_TIME))
    assert "is stale: stamped 5.000 s ago" in rig.inputs.poll()
    assert all(stream.age_s == pytest.approx(5.0) for stream in rig.inputs.streams())
    observe_at(105.1)
    clock.set_ros_time_override(Time(seconds=3, clock_type=ClockType.ROS_TIME))
    assert rig.inputs.poll().startswith("nothing received yet on ")
    observe_at(3.1)


def test_an_instruction_that_cannot_be_followed_is_refused_until_another_comes(
    bench: Callable,
) -> None:
    rig = bench()

    def too_long(text: str) -> None:
        raise QvlaError("instruction", "300 tokens", "at most 256 tokens", "say it in fewer words")

    follow = rig.inputs._hear
    rig.inputs._hear = too_long
    rig.tell()
    rig.wait(
        lambda: "on /x/instruction: instruction: got 300 tokens" in rig.inputs.poll(), "a refusal"
    )
    rig.inputs._hear = follow
    rig.tell()
    rig.wait(lambda: "300 tokens" not in rig.inputs.poll(), "the refusal to go")


def test_an_empty_text_is_refused_only_by_those_who_follow_the_topic(bench: Callable) -> None:
    rig = bench()
    topic = "/x/instruction"
    empty = String(data=" ")
    rig.publish(String, topic, empty, qos.LATCHED)
    rig.publish(String, topic, String(data="pick up the milk"), qos.LATCHED)
    rig.wait(lambda: rig.inputs._instruction.in_force, "the topic's instruction")
    assert rig.inputs.refusal() == ""
    rig.publish(String, topic, empty, qos.LATCHED)
    rig.wait(rig.inputs.refusal, "a refusal")
    assert "empty text on /x/instruction; expected a sentence" in rig.inputs.refusal()
    rig.tell()
    rig.wait(lambda: not rig.inputs.refusal(), "the refusal to go")
    rig.inputs.follow("open the drawer")  # a goal's
    heard: list[str] = []
    rig.inputs._hear = heard.append
    rig.publish(String, topic, empty, qos.LATCHED)
    rig.publish(String, topic, String(data="last"), qos.LATCHED)
    rig.wait(lambda: heard, "what came after the empty text")
    assert heard == ["last"]
    assert rig.inputs.refusal() == ""
