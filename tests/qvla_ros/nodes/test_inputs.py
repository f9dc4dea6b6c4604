"""The policy node's inputs in one process: what comes in over DDS, what comes out, and why nothing does."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rclpy
from geometry_msgs.msg import PoseStamped, TransformStamped
from PIL import Image as PillowImage
from rclpy.clock import ClockType, ROSClock
from rclpy.parameter import Parameter
from rclpy.qos import ReliabilityPolicy
from rclpy.time import Time
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import String

from qvla_ros.bundle import Bundle, load_bundle
from qvla_ros.errors import QvlaError
from qvla_ros.nodes import qos
from qvla_ros.nodes.inputs import InputSettings, ObservationInputs, input_settings
from qvla_ros.nodes.policy_parameters import PARAMETERS
from qvla_ros.nodes.process import EXECUTORS, make_executor
from qvla_ros.nodes.robot_state import Measured
from qvla_ros.observation import Observation
from qvla_ros.simulation.specification import FINGER_NAMES, JOINT_NAMES, POSE_FRAME

PATIENCE_S = 30.0
RESEND_S = 1.0
SIZE = 32
SETTINGS = InputSettings(max_stamp_spread_s=0.05, max_image_age_s=1.0)
DEFAULTS = {spec.name: spec.default for spec in PARAMETERS}


class Bench:
    """A node with inputs, a robot beside it that publishes, and the observations that came of it."""

    def __init__(
        self, bundle: Bundle, settings: InputSettings, parameters: list[Parameter], executor: str = EXECUTORS[0]
    ) -> None:
        self.bundle = bundle
        self.node = rclpy.create_node("policy", namespace="/x", parameter_overrides=parameters)
        self.robot = rclpy.create_node("robot")
        self.observations: list[Observation] = []
        self.threads: set[str] = set()
        self._executor = make_executor(executor)
        for node in (self.node, self.robot):
            self._executor.add_node(node)
        self.inputs = ObservationInputs(self.node, bundle, settings, self._keep)
        self.stamp_ns = time.time_ns()
        self._publishers: dict[str, Any] = {}

    def _keep(self, observation: Observation) -> None:
        self.observations.append(observation)
        self.threads.add(threading.current_thread().name)

    def publish(self, kind: Any, topic: str, message: Any, profile: Any = qos.SENSOR) -> None:
        if topic not in self._publishers:
            self._publishers[topic] = self.robot.create_publisher(kind, topic, profile)
            self.wait(lambda: self._publishers[topic].get_subscription_count() > 0, topic)
        self._publishers[topic].publish(message)

    def spin(self) -> None:
        self._executor.spin_once(timeout_sec=0.01)

    def wait(self, condition: Callable[[], Any], what: str) -> Any:
        deadline = time.monotonic() + PATIENCE_S
        while not (result := condition()):
            assert time.monotonic() < deadline, f"waited for {what}; {self.inputs.poll()}"
            self.spin()
        return result

    def close(self) -> None:
        self.inputs.destroy()
        for node in (self.node, self.robot):
            node.destroy_node()

    def tell(self) -> None:
        self.publish(String, "/x/instruction", String(data="pick up the milk"), qos.LATCHED)

    def stamped(self, message: Any, offset_ns: int = 0) -> Any:
        message.header.stamp = Time(nanoseconds=self.stamp_ns + offset_ns).to_msg()
        return message

    def send_state(self, joints: dict[str, float], frame: str = POSE_FRAME, x: float = 0.1, w: float = 1.0) -> None:
        self.publish_joints(joints)
        pose = PoseStamped()
        pose.header.frame_id = frame
        pose.pose.position.x, pose.pose.orientation.w = x, w
        self.publish(PoseStamped, "/x/ee_pose", self.stamped(pose))

    def publish_joints(self, joints: dict[str, float]) -> None:
        state = JointState(name=list(joints), position=list(joints.values()))
        self.publish(JointState, "/x/joint_states", self.stamped(state))

    def send_images(self, bundle: Bundle) -> None:
        for camera in bundle.cameras:
            image = Image(height=SIZE, width=SIZE, encoding="rgb8", step=3 * SIZE, data=bytes(3 * SIZE * SIZE))
            self.publish(Image, f"/x/camera/{camera.name}/image_raw", self.stamped(image))

    def observe(self, *send: Callable[[], None]) -> Observation:
        """Send everything under one stamp until an observation comes of it.

        Sent again, under a new stamp, only after a while: topics are best effort and one message deep, so that of two
        sets in a row the first may lose some and the second give the rest.
        """
        self.tell()
        count = len(self.observations)
        sent_s = -np.inf

        def answered() -> Observation | None:
            nonlocal sent_s
            if time.monotonic() - sent_s > RESEND_S:
                self.stamp_ns, sent_s = time.time_ns(), time.monotonic()
                for each in send:
                    each()
            self.spin()
            return self.observations[-1] if len(self.observations) > count else None

        return self.wait(answered, "an observation")


@pytest.fixture
def bundle(bundle_dir: Any) -> Bundle:
    return load_bundle(bundle_dir)


@pytest.fixture
def bench(ros_environment: dict[str, str], bundle: Bundle) -> Iterator[Callable[..., Bench]]:
    """bench(settings, parameters=[...]) in a ROS graph of its own."""
    rclpy.init(domain_id=int(ros_environment["ROS_DOMAIN_ID"]))
    benches: list[Bench] = []

    def make(
        settings: InputSettings = SETTINGS, parameters: list[Parameter] | None = None, of: Any = None, **more: Any
    ) -> Bench:
        benches.append(Bench(of or bundle, settings, parameters or [], **more))
        return benches[-1]

    yield make
    for each in benches:
        each.close()
    rclpy.try_shutdown()


def _fingers(value: float = 0.02) -> dict[str, float]:
    return {FINGER_NAMES[0]: value, FINGER_NAMES[1]: -value}


def _jpeg(colour: tuple[int, int, int]) -> bytes:
    buffer = io.BytesIO()
    PillowImage.new("RGB", (SIZE, SIZE), colour).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


@pytest.mark.parametrize("executor", EXECUTORS)
def test_compressed_images_are_decoded_on_another_thread_and_delivered_on_the_executors(
    bench: Callable, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, executor: str
) -> None:
    from qvla_ros.nodes import inputs

    decoders: set[str] = set()
    decode = inputs.rgb_pixels_of_compressed

    def watched(*args: Any) -> Any:
        decoders.add(threading.current_thread().name)
        return decode(*args)

    monkeypatch.setattr(inputs, "rgb_pixels_of_compressed", watched)
    rig = bench(replace(SETTINGS, image_transport="compressed"), executor=executor)

    def send() -> None:
        for camera in bundle.cameras:
            message = rig.stamped(CompressedImage(format="jpeg", data=_jpeg((200, 30, 60))))
            rig.publish(CompressedImage, f"/x/camera/{camera.name}/image_raw/compressed", message)
        rig.send_state(_fingers())

    observation = rig.observe(send)
    for camera in bundle.cameras:
        np.testing.assert_allclose(observation.images[camera.name].mean((0, 1)), (200, 30, 60), atol=3)
    assert decoders == {f"decode {camera.name}" for camera in bundle.cameras}
    assert rig.threads == {threading.main_thread().name}


def test_a_broken_compressed_image_is_refused_by_topic_and_mended_by_a_whole_one(
    bench: Callable, bundle: Bundle
) -> None:
    rig = bench(replace(SETTINGS, image_transport="compressed"))
    topic = f"/x/camera/{bundle.cameras[0].name}/image_raw/compressed"
    rig.publish(CompressedImage, topic, rig.stamped(CompressedImage(format="jpeg", data=_jpeg((0, 0, 0))[:100])))
    rig.wait(lambda: f"image on {topic}" in rig.inputs.poll(), "a refusal")
    rig.publish(CompressedImage, topic, rig.stamped(CompressedImage(format="jpeg", data=_jpeg((0, 0, 0)))))
    rig.wait(lambda: topic not in rig.inputs.poll(), "the refusal to go")


def test_the_measured_pose_and_gripper_are_the_newest_ones_and_as_old_as_the_oldest(
    bench: Callable, bundle: Bundle
) -> None:
    measured = Measured(gripper_joint=FINGER_NAMES[0], gripper_min=0.0, gripper_max=0.04)
    rig = bench(replace(SETTINGS, measured=measured))
    assert rig.inputs.measured() is None
    rig.send_state(_fingers(0.01), x=0.25)
    setpoint, stamp = rig.wait(rig.inputs.measured, "a measurement")
    np.testing.assert_allclose(setpoint.linear, [0.25, 0, 0])
    np.testing.assert_allclose(setpoint.quaternion_xyzw, [0, 0, 0, 1])
    assert setpoint.gripper == pytest.approx(0.25)
    assert stamp == rig.stamp_ns
    first_ns = rig.stamp_ns
    state = JointState(name=list(FINGER_NAMES), position=[0.03, -0.03])
    rig.publish(JointState, "/x/joint_states", rig.stamped(state, 5_000_000))
    rig.wait(lambda: rig.inputs.measured()[0].gripper > 0.5, "the newer gripper")
    assert rig.inputs.measured()[1] == first_ns  # the pose has not moved on


def test_an_output_of_joint_positions_measures_them_in_its_own_order_though_the_policy_reads_none(
    bench: Callable, bundle: Bundle
) -> None:
    blind = replace(bundle, proprioception=None)
    names = JOINT_NAMES[::-1]
    rig = bench(replace(SETTINGS, measured=Measured(names)), of=blind)
    positions = {name: 0.1 * index for index, name in enumerate(JOINT_NAMES)}
    observation = rig.observe(lambda: rig.send_images(blind), lambda: rig.publish_joints(positions))
    assert observation.proprioception.size == 0
    setpoint, _ = rig.wait(rig.inputs.measured, "a measurement")
    np.testing.assert_allclose(setpoint.linear, [positions[name] for name in names])
    assert setpoint.quaternion_xyzw is None
    assert setpoint.gripper is None


@pytest.mark.parametrize(
    ("joints", "options", "words"),
    [
        ({FINGER_NAMES[0]: float("nan"), FINGER_NAMES[1]: 0.0}, {}, ("joints on /x/joint_states", "nan", "finite")),
        (_fingers(), {"x": float("inf")}, ("pose on /x/ee_pose", "inf", "finite numbers")),
        (_fingers(), {"w": 0.0}, ("pose on /x/ee_pose", "quaternion of length 1")),
        ({FINGER_NAMES[0]: 0.0}, {}, (f"also {FINGER_NAMES[1]}", "source_list")),
    ],
)
def test_a_state_that_cannot_be_used_takes_the_measurement_away_until_it_is_mended(
    bench: Callable, joints: dict[str, float], options: dict, words: tuple[str, ...]
) -> None:
    rig = bench(replace(SETTINGS, measured=Measured(gripper_joint=FINGER_NAMES[0])))
    rig.send_state(_fingers())
    rig.wait(rig.inputs.measured, "a measurement")
    rig.send_state(joints, **options)
    rig.wait(lambda: all(word in rig.inputs.poll() for word in words), f"a reason with {words}")
    assert rig.inputs.measured() is None
    rig.send_state(_fingers())
    rig.wait(rig.inputs.measured, "a measurement again")


def test_without_an_output_nothing_is_measured_and_nothing_else_subscribed_to(bench: Callable, bundle: Bundle) -> None:
    rig = bench(of=replace(bundle, proprioception=None))
    assert rig.inputs.measured() is None
    assert {stream.topic for stream in rig.inputs.streams()} == {
        f"/x/camera/{camera.name}/image_raw" for camera in bundle.cameras
    }


def test_rates_and_ages_of_streams_are_told_by_topic(bench: Callable, bundle: Bundle) -> None:
    rig = bench()
    rig.observe(lambda: rig.send_images(bundle), lambda: rig.send_state(_fingers()))
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
        rig.send_state(_fingers())
        rig.wait(lambda: len(rig.observations) > count, f"an observation at {seconds} s")

    observe_at(100.0)
    clock.set_ros_time_override(Time(seconds=105, clock_type=ClockType.ROS_TIME))
    assert "is stale: stamped 5.000 s ago" in rig.inputs.poll()
    assert all(stream.age_s == pytest.approx(5.0) for stream in rig.inputs.streams())
    observe_at(105.1)
    clock.set_ros_time_override(Time(seconds=3, clock_type=ClockType.ROS_TIME))
    assert rig.inputs.poll().startswith("nothing received yet on ")
    observe_at(3.1)


def test_a_pose_from_tf_without_tf2_names_the_package(bench: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "tf2_ros", None)
    with pytest.raises(QvlaError, match=r"parameter pose_source: got tf .*install tf2_ros"):
        bench(replace(SETTINGS, pose_source="tf", tool_frame="tool"))


def test_an_instruction_that_cannot_be_followed_is_refused_until_another_comes(bench: Callable) -> None:
    rig = bench()

    def too_long(text: str) -> None:
        raise QvlaError("instruction", "300 tokens", "at most 256 tokens", "say it in fewer words")

    follow, rig.inputs._hear = rig.inputs._hear, too_long
    rig.tell()
    rig.wait(lambda: "on /x/instruction: instruction: got 300 tokens" in rig.inputs.poll(), "a refusal")
    rig.inputs._hear = follow
    rig.tell()
    rig.wait(lambda: "300 tokens" not in rig.inputs.poll(), "the refusal to go")


def test_inputs_that_cannot_be_made_leave_no_subscription(bench: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "tf2_ros", None)
    rig = bench()
    before = len(list(rig.node.subscriptions))
    with pytest.raises(QvlaError, match="parameter pose_source"):
        ObservationInputs(rig.node, rig.bundle, replace(SETTINGS, pose_source="tf", tool_frame="tool"), lambda _: None)
    assert len(list(rig.node.subscriptions)) == before


class FakeTransforms(ModuleType):
    """The part of tf2_ros that is used; the wheels have none. A transform at time t is at x = t - epoch."""

    class TransformException(Exception):
        pass

    def __init__(self) -> None:
        super().__init__("tf2_ros")
        self.known = True
        self.lookups: list[tuple[str, str, int, str]] = []
        self.newest_ns = 0
        module = self

        class Buffer:
            def lookup_transform(self, target: str, source: str, moment: Any, timeout: Any) -> TransformStamped:
                module.lookups.append((target, source, moment.nanoseconds, threading.current_thread().name))
                if not module.known:
                    raise FakeTransforms.TransformException(f'"{source}" does not exist')
                found = TransformStamped()
                found.header.stamp = Time(nanoseconds=moment.nanoseconds or module.newest_ns).to_msg()
                found.transform.translation.x = 0.5
                return found

        self.Buffer = Buffer
        self.TransformListener = lambda buffer, node: SimpleNamespace(unregister=lambda: None)


@pytest.fixture
def transforms(monkeypatch: pytest.MonkeyPatch) -> FakeTransforms:
    import sys

    fake = FakeTransforms()
    monkeypatch.setitem(sys.modules, "tf2_ros", fake)
    return fake


def test_a_pose_from_tf_is_looked_up_at_the_images_stamp_off_the_executors_thread(
    bench: Callable, bundle: Bundle, transforms: FakeTransforms
) -> None:
    rig = bench(replace(SETTINGS, pose_source="tf", tool_frame="tool", measured=Measured()))

    def send() -> None:
        rig.send_images(bundle)
        rig.publish_joints(_fingers())

    observation = rig.observe(send)
    (pose_stamp,) = (stamp for topic, stamp in observation.stamps_ns.items() if topic.startswith("/tf"))
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
    rig = bench(replace(SETTINGS, pose_source="tf", tool_frame="tool", measured=Measured()))
    transforms.known = False
    rig.send_images(bundle)
    rig.wait(lambda: '"tool" does not exist' in rig.inputs.poll(), "the error of TF")
    assert rig.inputs.measured() is None


def test_settings_come_from_the_parameters_and_the_kind_of_actions(bundle: Bundle) -> None:
    settings = input_settings({**DEFAULTS, "tool_frame": "tool", "image_transport": "compressed"}, bundle)
    assert (settings.image_transport, settings.tool_frame, settings.measured) == ("compressed", "tool", None)
    twist = {**DEFAULTS, "output": "twist", "joints": ["a", "b"], "gripper_joint": "f", "gripper_max": 0.04}
    assert input_settings(twist, bundle).measured == Measured((), "f", 0.0, 0.04)
    joint_bundle = replace(bundle, actions=replace(bundle.actions, kind="joint_position"))
    assert input_settings(twist, joint_bundle).measured == Measured(("a", "b"), "f", 0.0, 0.04)


def test_a_gripper_that_is_as_open_as_it_is_closed_is_refused(bundle: Bundle) -> None:
    parameters = {**DEFAULTS, "output": "twist", "gripper_joint": "f", "gripper_min": 1.0}
    with pytest.raises(QvlaError, match="gripper_min and gripper_max: got both 1"):
        input_settings(parameters, bundle)
