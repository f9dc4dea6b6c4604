"""The pose from TF, whose Python package the wheels lack: a stand-in says what it was asked."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from geometry_msgs.msg import TransformStamped
from rclpy.time import Time

from qvla_ros.bundle import Bundle
from qvla_ros.errors import QvlaError
from qvla_ros.messages.robot_state import Measured
from qvla_ros.nodes.policy.inputs.observation_inputs import ObservationInputs
from qvla_ros.parameters.policy import InputParameters
from qvla_ros.simulation.specification import POSE_FRAME


class FakeTransforms(ModuleType):
    """The part of tf2_ros that is used.

    The wheels have none. A transform at time t is at x = t - epoch.
    """

    class TransformException(Exception):
        pass

    def __init__(self) -> None:
        super().__init__("tf2_ros")
        self.known = True
        self.lookups: list[tuple[str, str, int, str]] = []
        self.newest_ns = 0
        module = self

        class Buffer:
            def lookup_transform(
                self, target: str, source: str, moment: Any, timeout: Any
            ) -> TransformStamped:
                module.lookups.append(
                    (target, source, moment.nanoseconds, threading.current_thread().name)
                )
                if not module.known:
                    raise FakeTransforms.TransformException(f'"{source}" does not exist')
                found = TransformStamped()
                found.header.stamp = Time(
                    nanoseconds=moment.nanoseconds or module.newest_ns
                ).to_msg()
                found.transform.translation.x = 0.5
                return found

        self.Buffer = Buffer
        self.TransformListener = lambda buffer, node: SimpleNamespace(unregister=lambda: None)


@pytest.fixture
def transforms(monkeypatch: pytest.MonkeyPatch) -> FakeTransforms:
    fake = FakeTransforms()
    monkeypatch.setitem(sys.modules, "tf2_ros", fake)
    return fake


def test_a_pose_from_tf_without_tf2_names_the_package(
    bench: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tf2_ros", None)
    with pytest.raises(QvlaError, match=r"parameter pose_source: got tf .*install tf2_ros"):
        bench(pose_source="tf", tool_frame="tool")


def test_inputs_that_cannot_be_made_leave_no_subscription(
    bench: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tf2_ros", None)
    rig = bench()
    settings = InputParameters(pose_source="tf", tool_frame="tool")
    before = len(list(rig.node.subscriptions))
    with pytest.raises(QvlaError, match="parameter pose_source"):
        ObservationInputs(rig.node, rig.bundle, settings, lambda _: None)
    assert len(list(rig.node.subscriptions)) == before


def test_a_pose_from_tf_is_looked_up_at_the_images_stamp_off_the_executors_thread(
    bench: Callable, bundle: Bundle, transforms: FakeTransforms
) -> None:
    rig = bench(pose_source="tf", tool_frame="tool", measured=Measured(), max_equal_images=0)

    def send() -> None:
        rig.send_images(bundle)
        rig.publish_joints(rig.fingers())

    observation = rig.observe(send)
    (pose_stamp,) = (
        stamp for topic, stamp in observation.stamps_ns.items() if topic.startswith("/tf")
    )
    assert pose_stamp == observation.stamps_ns[f"/x/camera/{bundle.cameras[0].name}/image_raw"]
    assert observation.proprioception[0] == 0.5
    assert {lookup[:2] for lookup in transforms.lookups} == {(POSE_FRAME, "tool")}
    assert {lookup[3] for lookup in transforms.lookups} == {"transforms"}
    transforms.newest_ns = 7
    setpoint, stamp = rig.inputs.measured()
    assert (setpoint.linear[0], stamp) == (0.5, 7)


def test_a_transform_that_does_not_exist_is_the_reason_for_waiting(
    bench: Callable, bundle: Bundle, transforms: FakeTransforms
) -> None:
    rig = bench(pose_source="tf", tool_frame="tool", measured=Measured())
    transforms.known = False
    rig.send_images(bundle)
    rig.wait(lambda: '"tool" does not exist' in rig.inputs.poll(), "the error of TF")
    assert rig.inputs.measured() is None
