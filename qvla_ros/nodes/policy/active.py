"""The policy node's parts from activate to deactivate: inputs, inference, and chunks out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from qvla.msg import PolicyStatus
from rclpy.node import Node

from qvla_ros.control.stop_reason import StopReason
from qvla_ros.control.timeline import PlannedChunk
from qvla_ros.errors import QvlaError
from qvla_ros.messages.robot_state import measured_by
from qvla_ros.nodes.chunk_message import chunk_message, set_latencies
from qvla_ros.nodes.policy.commands import Sources
from qvla_ros.nodes.policy.configured import Configured
from qvla_ros.nodes.policy.inference import Inference
from qvla_ros.nodes.policy.inputs.observation_inputs import ObservationInputs
from qvla_ros.nodes.policy.sole_publishers import SolePublishers
from qvla_ros.observation import Observation
from qvla_ros.parameters.policy import PolicyParameters
from qvla_ros.policy import Prediction


@dataclass
class NodeCounts:
    """Counts since the process began.

    misses: chunks so late that none of their actions was left.
    """

    published: int = 0
    dropped: int = 0
    misses: int = 0
    misses_in_a_row: int = 0


def cannot_arm(reason: str) -> QvlaError:
    """The error with which arming is refused when the node is not active or at fault."""
    fix = "see ~/status, then call ~/arm again"
    return QvlaError("cannot arm", reason, "an active node without a fault", fix)


class Active:
    """Subscribed and disarmed once `start`ed.

    Ended by `end`. On the executor's thread, except where it says otherwise.

    hear: called with every instruction that arrives and can be followed; report: called when the
    node begins to run. fault: why nothing is published any more, else empty; waits_for: why no
    observation is complete, else empty.
    """

    def __init__(
        self,
        node: Node,
        parameters: PolicyParameters,
        configured: Configured,
        counts: NodeCounts,
        hear: Callable[[str], None],
        report: Callable[[], None],
    ) -> None:
        self._node = node
        self._policy = configured.policy
        self._commands = configured.commands
        self._chunks = configured.chunks
        self._counts = counts
        self._hear = hear
        self._report = report
        self._max_image_age_s = parameters.inputs.max_image_age_s
        self._instruction: str | None = None  # the one in force
        self._last_observation_s = float("-inf")
        self.fault = ""
        self.waits_for = ""
        bundle = self._policy.bundle
        # The inputs may fail, so they come before the thread.
        self.inputs = ObservationInputs(
            node,
            bundle,
            parameters.inputs,
            self._on_observation,
            self._on_instruction,
            measured_by(parameters.commands, bundle),
        )
        self._commands_a_robot = parameters.commands.output != "none"
        self._knows_states = parameters.watchdogs.require_known_state and self._commands_a_robot
        self._sole = self._sole_publishers(parameters)
        self._state: NDArray[np.float64] | None = None  # of the last observation
        self.inference = Inference(
            self._policy,
            self._on_prediction,
            self._on_failure,
            parameters.watchdogs.inference_timeout_s,
            self._now_ns,
        )

    def start(self) -> None:
        """Begins to tick, disarmed."""
        inputs = self.inputs
        self._commands.start(Sources(inputs.measured, inputs.refusal, self.inference.busy_s))
        self.waits_for = inputs.poll()

    def end(self, reason: StopReason) -> None:
        """Stops the arm first, then the inputs; the inference may go on until it is stopped."""
        self._commands.finish(reason)
        self._watch_commands()
        self.inputs.destroy()

    def poll(self) -> None:
        """Notices late inferences, missing inputs and a broken loop; called periodically."""
        if not self.fault:
            self.inference.watch()
        self._watch_commands()
        waits_for = self.inputs.poll()
        since_s = time.monotonic() - self._last_observation_s
        if not waits_for and since_s > self._max_image_age_s:
            waits_for = f"no new observation for {self._max_image_age_s:g} s"
        self.waits_for = waits_for
        self._commands.poll()
        if self._commands.armed and (crowd := self._sole.crowd()):
            self._commands.disarm(StopReason.crowded, crowd)

    def state(self) -> tuple[int, str]:
        """One of PolicyStatus' constants, and why it is not RUNNING. From any thread."""
        if self.fault:
            return PolicyStatus.FAULT, self.fault
        waits_for = self.waits_for
        return (PolicyStatus.WAITING, waits_for) if waits_for else (PolicyStatus.RUNNING, "")

    def arm(self, settle: Callable[[], bool]) -> None:
        """Lets what is published from now on be acted on. QvlaError says why not.

        settle: ends a task that was stopped; False while its stop is still to be sent.
        """
        if self.fault:
            raise cannot_arm(self.fault)
        if not self._commands.armed:
            if not settle():
                found = "a task that is still being stopped"
                raise QvlaError(
                    "cannot arm", found, "no task that is still stopping", "call ~/arm again"
                )
            self._require_a_fit_robot()
            self._policy.reset()  # what it saw before is not part of what begins now
        self._commands.arm()

    def _require_a_fit_robot(self) -> None:
        """Raises QvlaError where a commanded robot has rivals or is nowhere near its task."""
        if crowd := self._sole.crowd():
            fix = "then call ~/arm again"
            raise QvlaError("cannot arm", crowd, "one publisher a topic", fix)
        if self._knows_states and self._state is not None:
            self._policy.require_known_state(self._state)

    def _sole_publishers(self, parameters: PolicyParameters) -> SolePublishers:
        node = self._node
        commands = parameters.commands
        if not (self._commands_a_robot and parameters.watchdogs.sole_publishers):
            return SolePublishers(node, (), ())
        sent = [commands.output_topic]
        if commands.gripper_output == "position":
            sent.append(commands.gripper_topic)
        enable = ["~/enable"] if parameters.watchdogs.deadman else []
        ready = filter(None, [parameters.watchdogs.ready_topic])
        told = map(node.resolve_topic_name, (*enable, *ready))
        heard = (*self.inputs.camera_topics, *told)
        return SolePublishers(node, heard, map(node.resolve_topic_name, sent))

    def follow(self, instruction: str | None) -> None:
        """Acts on this instruction from now on, or on none.

        What is planned or being computed for another one is dropped.
        """
        if instruction == self._instruction:
            return
        self._instruction = instruction
        self.inputs.follow(instruction)
        self._commands.flush()
        self._policy.reset()

    # What comes in.

    def _on_instruction(self, text: str) -> None:
        self._policy.require_instruction(text)
        self._hear(text)

    def _on_observation(self, observation: Observation) -> None:
        self._last_observation_s = time.monotonic()
        self._state = observation.proprioception
        self._commands.observe(min(observation.stamps_ns.values()))
        if not observation.instruction:
            return
        if not self.fault:
            self.inference.submit(observation)
        if self.waits_for:
            self.waits_for = ""
            self._report()

    def _on_prediction(
        self, observation: Observation, prediction: Prediction, stage_ms: Mapping[str, float]
    ) -> None:
        """Publishes a result; runs on the inference's thread."""
        if observation.instruction != self._instruction:
            return  # in force when the inference began, but not any more
        bundle = self._policy.bundle
        step_dt_s = bundle.actions.control_period_s
        actions = prediction.actions
        skipped = self._commands.plan(PlannedChunk(observation.stamp_ns, step_dt_s, actions))
        message = chunk_message(bundle, actions, observation, self._commands.armed)
        total_ms = (self._now_ns() - observation.stamp_ns) * 1e-6
        set_latencies(message, {**stage_ms, "total": total_ms})
        self._chunks.publish(message)
        counts = self._counts
        counts.published += 1
        # A chunk is late when nothing of it is left to begin with; a single action when the next
        # one is due.
        late = total_ms * 1e-3 > max(len(actions) - 1, 1) * step_dt_s
        missed = late if skipped is None else skipped == len(actions)
        counts.misses += missed
        counts.misses_in_a_row = counts.misses_in_a_row + 1 if missed else 0

    # What goes wrong.

    def _watch_commands(self) -> None:
        if self._commands.error and not self.fault:
            self._on_failure(self._commands.error, StopReason.internal_error)

    def _on_failure(self, reason: str, stop: StopReason) -> None:
        """Reports a failed inference; runs on the inference's thread."""
        self._commands.disarm(stop)
        self.fault = (
            f"{reason} Nothing is published until the node is deactivated and activated again."
        )
        self._node.get_logger().error(self.fault)

    def _now_ns(self) -> int:
        return self._node.get_clock().now().nanoseconds
