"""The policy node, a lifecycle node: what runs when, and who is told what. See
qvla_ros.nodes.policy.main.

configure verifies the bundle, loads the engine and warms it up; activate subscribes and starts,
disarmed; deactivate stops the arm. Inference runs on one worker thread that always takes the newest
observation, commands go out from a control thread, all else happens on the executor's.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from qvla.msg import ActionChunk, PolicyStatus
from rclpy.clock import Clock, ClockType
from std_srvs.srv import SetBool

from qvla_ros.control.stop_reason import StopReason
from qvla_ros.control.timeline import PlannedChunk
from qvla_ros.engines import engine_options
from qvla_ros.errors import QvlaError
from qvla_ros.messages.robot_state import measured_by
from qvla_ros.nodes import qos
from qvla_ros.nodes.chunk_message import chunk_message, set_latencies
from qvla_ros.nodes.lifecycle import ReportingLifecycleNode
from qvla_ros.nodes.parameters import declare_parameters
from qvla_ros.nodes.policy.commander import Commander, Sources
from qvla_ros.nodes.policy.diagnostics import DiagnosticsPublisher
from qvla_ros.nodes.policy.display import PlanDisplay
from qvla_ros.nodes.policy.figures import CommandFigures
from qvla_ros.nodes.policy.inference import Inference
from qvla_ros.nodes.policy.inputs import ObservationInputs
from qvla_ros.nodes.policy.snapshot import Snapshot
from qvla_ros.nodes.policy.status import StatusPublisher
from qvla_ros.nodes.policy.tasks import Tasks
from qvla_ros.observation import Observation
from qvla_ros.parameters.policy import PolicyParameters
from qvla_ros.policy import Policy, Prediction, load_policy

TICK_S = 0.1  # how often inputs and the inference deadline are looked at
GOODBYE_S = 0.5


class PolicyNode(ReportingLifecycleNode):
    """See the module."""

    def __init__(self, cli_args: list[str] | None = None) -> None:
        super().__init__("policy", cli_args=cli_args)
        self.parameters = declare_parameters(self, PolicyParameters)
        self._policy: Policy | None = None
        self._inputs: ObservationInputs | None = None
        self._inference: Inference | None = None
        self._commander: Commander | None = (
            None  # stays None with output "none": chunks are all there is
        )
        self._figures = CommandFigures()  # of a commander that is gone
        self._chunks: Any = None
        self._chunks_armed = False
        self._fault = ""
        self._reason = ""
        self._instruction: str | None = None  # the one in force
        self._published = 0
        self._dropped = 0
        self._misses = 0
        self._misses_in_a_row = 0
        self._last_observation_s = float("-inf")
        self._display: PlanDisplay | None = None
        self._status = StatusPublisher(self)
        self._diagnostics = DiagnosticsPublisher(
            self, self.snapshot, self.parameters.inputs.max_image_age_s
        )
        self._tasks = Tasks(self, self)
        self.create_service(SetBool, "~/arm", self._on_arm)
        # Not on ROS time: with use_sim_time and no /clock the node must still say what it waits
        # for.
        self.create_timer(TICK_S, self._on_tick, clock=Clock(clock_type=ClockType.STEADY_TIME))

    # Lifecycle.

    def configure(self) -> None:
        model = self.parameters.model
        if not model.bundle:
            raise QvlaError(
                "parameter bundle", "nothing", "the directory of a bundle", "-p bundle:=DIR"
            )
        started_s = time.monotonic()
        options = engine_options(model.engine_options, "-p engine_options", ":=")
        self._policy = load_policy(model.bundle, model.backend, **options)
        bundle = self._policy.bundle
        if self.parameters.commands.output != "none":
            self._commander = Commander(self, self.parameters, bundle.actions, self._figures)
            self._display = self._commander.display()
        self._policy.warm_up()
        if self._chunks is None:
            arguments = qos.published(qos.COMMAND)
            self._chunks = self.create_lifecycle_publisher(
                ActionChunk, "~/action_chunk", **arguments
            )
        self.get_logger().info(
            f"bundle {bundle.bundle_id} ({bundle.directory}), engine {self._policy.engine.name}, "
            f"ready after {time.monotonic() - started_s:.1f} s"
        )
        self._status.publish(self.snapshot())

    def activate(self) -> None:
        assert self._policy is not None
        bundle = self._policy.bundle
        given = self.parameters
        self._fault = ""
        self._instruction = None
        limit_s = given.watchdogs.inference_timeout_s
        self._inference = Inference(
            self._policy, self._on_prediction, self._on_failure, limit_s, self._now_ns
        )
        self._inputs = ObservationInputs(
            self,
            bundle,
            given.inputs,
            self._on_observation,
            self._hear,
            measured_by(given.commands, bundle),
        )
        if self._commander is not None:
            sources = Sources(self._inputs.measured, self._inputs.refusal, self._inference.busy_s)
            self._commander.start(sources)
        self._reason = self._inputs.poll()
        self.get_logger().info(
            "active and disarmed: chunks are marked armed after ~/arm is called with true"
        )
        self._status.publish(self.snapshot())

    def deactivate(self, reason: StopReason = StopReason.deactivated) -> None:
        self._chunks_armed = False
        if self._commander is not None:
            self._commander.finish(reason)  # first of all: the rest may take a while
        if self._inputs is not None:
            self._inputs.destroy()
            self._inputs = None
        if self._inference is not None:
            if not self._inference.stop(
                self.parameters.watchdogs.inference_timeout_s
            ):  # it stays: the engine is in use
                fix = "restart the node; raise inference_timeout_s if the engine is slow"
                raise QvlaError(
                    "inference", "still running", "an end within inference_timeout_s", fix
                )
            self._dropped += self._inference.dropped
            self._inference = None
        self._status.publish(self.snapshot())

    def release(self, reason: StopReason = StopReason.deactivated) -> None:
        self.deactivate(reason)
        if self._commander is not None:
            self._figures = self._commander.figures()
            self._commander.destroy()
            self._commander = None
        if self._display is not None:
            self._display.destroy()
            self._display = None
        if self._policy is not None:
            policy = self._policy
            self._policy = None
            policy.close()
        if self._chunks is not None:
            self.destroy_lifecycle_publisher(self._chunks)
            self._chunks = None

    def say_goodbye(self) -> None:
        """Stop, disarm, free the engine, and see to it that the last status reaches those who
        listen.
        """
        try:
            self.release(StopReason.shutdown)
        except QvlaError as error:
            self.get_logger().error(str(error))  # the engine is then left to the end of the process
        self._tasks.close()
        self._status.publish(self.snapshot())
        self._status.wait_for_acknowledgement(GOODBYE_S)

    # Inference: the first on the executor's thread, the others on the worker's.

    def _on_observation(self, observation: Observation) -> None:
        self._last_observation_s = time.monotonic()
        if self._commander is not None:
            self._commander.observe(min(observation.stamps_ns.values()))
        if not observation.instruction:
            return
        if self._inference is not None and not self._fault:
            self._inference.submit(observation)
        if self._reason:
            self._reason = ""
            self._status.publish(self.snapshot())

    def _on_prediction(
        self, observation: Observation, prediction: Prediction, stage_ms: Mapping[str, float]
    ) -> None:
        assert self._policy is not None
        if (
            observation.instruction != self._instruction
        ):  # in force when the inference began, but not any more
            return
        bundle = self._policy.bundle
        step_dt_s = bundle.actions.control_period_s
        actions = prediction.actions
        skipped = None
        if self._commander is not None:
            skipped = self._commander.plan(PlannedChunk(observation.stamp_ns, step_dt_s, actions))
        message = chunk_message(bundle, actions, observation, self.armed)
        total_ms = (self._now_ns() - observation.stamp_ns) * 1e-6
        set_latencies(message, {**stage_ms, "total": total_ms})
        self._chunks.publish(message)
        self._published += 1
        # A chunk is late when nothing of it is left to begin with; a single action when the next
        # one is due.
        late = total_ms * 1e-3 > max(len(actions) - 1, 1) * step_dt_s
        missed = late if skipped is None else skipped == len(actions)
        self._misses += missed
        self._misses_in_a_row = self._misses_in_a_row + 1 if missed else 0

    def _on_failure(self, reason: str, stop: StopReason) -> None:
        if self._commander is not None:
            self._commander.disarm(stop)
        self._fault = (
            f"{reason} Nothing is published until the node is deactivated and activated again."
        )
        self._chunks_armed = False
        self.get_logger().error(self._fault)

    # What tasks ask for: see TaskHost.

    def follow(self, instruction: str | None) -> None:
        """From now on this instruction, or none; what is planned or being computed for another one
        is dropped.
        """
        if instruction == self._instruction:
            return
        self._instruction = instruction
        if self._inputs is not None:
            self._inputs.follow(instruction)
        if self._commander is not None:
            self._commander.flush()
        if self._policy is not None:
            self._policy.reset()

    def instruction_error(self, instruction: str) -> str:
        """Why the policy cannot be given this instruction; empty if it can."""
        try:
            if self._policy is not None:
                self._policy.require_instruction(instruction)
        except QvlaError as error:
            return str(error)
        return ""

    def _hear(self, text: str) -> None:
        if self._policy is not None:
            self._policy.require_instruction(text)
        self._tasks.hear(text)

    def is_stopping(self) -> bool:
        return self._commander is not None and self._commander.is_stopping()

    # Status and arming.

    @property
    def armed(self) -> bool:
        """Whether what is published may be acted on."""
        return self._chunks_armed if self._commander is None else self._commander.armed

    def disarm(self, reason: StopReason = StopReason.disarmed) -> None:
        """Stop the arm, if it is commanded, and mark chunks as not to be acted on. From any thread."""
        self._chunks_armed = False
        if self._commander is not None:
            self._commander.disarm(reason)

    def _on_tick(self) -> None:
        if self._inference is not None and not self._fault:
            self._inference.watch()
        if self._commander is not None and self._commander.error and not self._fault:
            self._on_failure(self._commander.error, StopReason.internal_error)
        if self._inputs is not None:
            reason = self._inputs.poll()
            since_s = time.monotonic() - self._last_observation_s
            limit_s = self.parameters.inputs.max_image_age_s
            if not reason and since_s > limit_s:
                reason = f"no new observation for {limit_s:g} s"
            self._reason = reason
        self._show_plan()
        self._status.publish(self.snapshot(), only_news=True)

    def _show_plan(self) -> None:
        if (
            self._display is None
            or self._commander is None
            or self._inputs is None
            or not self._display.wanted
        ):
            return
        measured = self._inputs.measured()
        if measured is not None:
            self._display.show(measured[0], self._commander.plan_ahead()[1])

    def _state(self) -> tuple[int, str]:
        if self._inputs is None:
            return (
                PolicyStatus.INACTIVE,
                "not active: call change_state, or start with autostart:=true",
            )
        if self._fault:
            return PolicyStatus.FAULT, self._fault
        return (PolicyStatus.WAITING, self._reason) if self._reason else (PolicyStatus.RUNNING, "")

    def arm(self) -> None:
        """Let what is published from now on be acted on. QvlaError says why not."""
        state, reason = self._state()
        if state in (PolicyStatus.INACTIVE, PolicyStatus.FAULT):
            raise QvlaError(
                "cannot arm",
                reason,
                "an active node without a fault",
                "see ~/status, then call ~/arm again",
            )
        if not self.armed and not self._tasks.settle():
            raise QvlaError(
                "cannot arm", "a task that is still being stopped", "its end", "call ~/arm again"
            )
        if not self.armed and self._policy is not None:
            self._policy.reset()  # what it saw before is not part of what begins now
        if self._commander is not None:
            self._commander.arm()
        self._chunks_armed = True

    def _on_arm(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        try:
            self.arm() if request.data else self.disarm()
            response.success = True
            response.message = "armed" if request.data else "disarmed"
        except QvlaError as error:
            response.success = False
            response.message = str(error)
        self.get_logger().info(response.message)
        self._status.publish(self.snapshot())
        return response

    def snapshot(self) -> Snapshot:
        """What the node knows about itself now. From any thread."""
        policy = self._policy
        inputs = self._inputs
        inference = self._inference
        commander = self._commander
        figures = self._figures if commander is None else commander.figures()
        stop = figures.last_stop
        state, reason = self._state()
        remaining_s, upcoming = (
            (0.0, np.zeros((0, 0))) if commander is None else commander.plan_ahead()
        )
        return Snapshot(
            state=state,
            reason=reason,
            armed=self.armed,
            stop_reason="" if figures.reason is None else figures.reason.name,
            stop_stamp_ns=0 if stop is None else stop.stamp_ns,
            stop_delay_s=0.0 if stop is None else stop.delay_s,
            stop_delay_ticks=0 if stop is None else stop.delay_ticks,
            bundle_id="" if policy is None else policy.bundle.bundle_id,
            engine="" if policy is None else policy.engine.name,
            backend=self.parameters.model.backend,
            streams=() if inputs is None else inputs.streams(),
            inference_ms=() if inference is None else inference.inference_ms(),
            stage_ms={} if inference is None else inference.stage_ms,
            deadline_misses=self._misses,
            consecutive_deadline_misses=self._misses_in_a_row,
            chunks_published=self._published,
            observations_dropped=self._dropped + (0 if inference is None else inference.dropped),
            commands_sent=figures.commands_sent,
            interventions=figures.interventions,
            loop=None if commander is None else commander.health(),
            remaining_s=remaining_s,
            step_dt_s=0.0 if policy is None else policy.bundle.actions.control_period_s,
            upcoming=upcoming,
        )

    def _now_ns(self) -> int:
        return self.get_clock().now().nanoseconds
