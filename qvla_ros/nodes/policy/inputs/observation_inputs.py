"""Everything that an observation is made of, and the reason while there is none."""

from __future__ import annotations

from collections.abc import Callable

from rclpy.node import Node

from qvla_ros.bundle import Bundle
from qvla_ros.control.setpoint import Setpoint
from qvla_ros.messages.robot_state import Measured
from qvla_ros.nodes.policy.inputs.cameras import Cameras
from qvla_ros.nodes.policy.inputs.instruction import InstructionInput
from qvla_ros.nodes.policy.inputs.robot_state import RobotState
from qvla_ros.nodes.policy.inputs.stream_statistics import StreamHealth
from qvla_ros.nodes.policy.inputs.streams import Streams
from qvla_ros.observation import Observation, Samples, proprioception_vector
from qvla_ros.parameters.policy import InputParameters


class ObservationInputs:
    """Subscribes to what the bundle and the output need.

    Calls `deliver(observation)` once per new, complete set.

    Topics are relative: `camera/<name>/image_raw` (or `.../image_raw/compressed`), `joint_states`,
    `ee_pose`, `instruction`. A message that cannot be used makes its topic count as missing, and
    `poll` says why. `hear(text)` is called with every instruction that arrives, and calls `follow`
    to put it, or another, in force, or raises a QvlaError if it cannot be followed; without it
    every text is followed. As long as none is in force, observations come with an empty one, for
    those who watch over the inputs. measured: what the output needs to know of the arm.

    All of it runs on the executor's thread, except decoding images and waiting for transforms,
    which have threads of their own, and `measured`, `refusal` and `streams`, which any thread may
    call.
    """

    def __init__(
        self,
        node: Node,
        bundle: Bundle,
        parameters: InputParameters,
        deliver: Callable[[Observation], None],
        hear: Callable[[str], None] | None = None,
        measured: Measured | None = None,
    ) -> None:
        self._deliver = deliver
        self._names = () if bundle.proprioception is None else bundle.proprioception.names
        self._streams = Streams(node, self._emit)
        self._state = RobotState(self._streams, node, bundle, parameters, measured)
        self._cameras = Cameras(
            self._streams,
            bundle.cameras,
            parameters.image_transport,
            self._state.locate,
            self._arm,
            parameters.max_equal_images,
        )
        state_topics = (self._state.joint_topic, self._state.pose_topic)
        self._streams.join(
            (*self._cameras.topics.values(), *filter(None, state_topics)),
            parameters.max_stamp_spread_s,
            parameters.max_image_age_s,
        )
        self._hear = self.follow if hear is None else hear
        self._instruction = InstructionInput(self._streams, lambda text: self._hear(text))

    def poll(self) -> str:
        """Tries again to complete an observation.

        Why there can be none, or empty when the streams are fresh.

        Raises what went wrong on the threads for slow work since the last time.
        """
        self._streams.raise_error()
        return self._streams.advance() or self._instruction.lack()

    def follow(self, instruction: str | None) -> None:
        """Gives this instruction to the observations from here on; None: none is in force."""
        self._instruction.follow(instruction)

    def refusal(self) -> str:
        """Why the newest message of some topic cannot be used, else empty. From any thread."""
        return self._streams.refusal()

    def measured(self) -> tuple[Setpoint, int] | None:
        """Where the arm is, and the stamp of that, ns; see RobotState.measured. From any thread."""
        return self._state.measured()

    def streams(self) -> tuple[StreamHealth, ...]:
        """Rate and age of each input. From any thread."""
        return self._streams.health()

    @property
    def camera_topics(self) -> tuple[str, ...]:
        """In full, after remapping."""
        return tuple(self._cameras.topics.values())

    def destroy(self) -> None:
        """Ends all subscriptions and threads."""
        self._streams.destroy()
        self._state.destroy()

    def _arm(self) -> Setpoint | None:
        measured = self._state.measured()
        return None if measured is None else measured[0]

    def _emit(self, samples: Samples) -> None:
        topics = self._cameras.topics
        images = {name: samples.values[topic] for name, topic in topics.items()}
        joint_topic = self._state.joint_topic
        pose_topic = self._state.pose_topic
        joints = {} if joint_topic is None else samples.values[joint_topic]
        pose = None if pose_topic is None else samples.values[pose_topic]
        position_m = None if pose is None else pose.position_m
        quaternion_xyzw = None if pose is None else pose.quaternion_xyzw
        proprioception = proprioception_vector(self._names, joints, position_m, quaternion_xyzw)
        newest_ns = max(samples.stamps_ns[topic] for topic in topics.values())
        instruction = self._instruction.in_force or ""
        self._deliver(
            Observation(images, proprioception, instruction, newest_ns, samples.stamps_ns)
        )
