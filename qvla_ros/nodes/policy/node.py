"""The policy node, a lifecycle node: what runs when, and who is asked what.

See qvla_ros.nodes.policy.main.

configure verifies the bundle, loads the engine and warms it up (Configured); activate subscribes
and starts, disarmed (Active); deactivate stops the arm. Inference runs on one worker thread that
always takes the newest observation, commands go out from a control thread, all else happens on the
executor's.
"""

from __future__ import annotations

import time
from typing import Any

from rclpy.clock import Clock, ClockType
from std_srvs.srv import SetBool

from qvla_ros.control.arm_order import ArmOrder, lost_to_stop
from qvla_ros.control.stop_reason import StopReason
from qvla_ros.errors import QvlaError
from qvla_ros.nodes.lifecycle import ReportingLifecycleNode
from qvla_ros.nodes.parameters import declare_parameters
from qvla_ros.nodes.policy.active import Active, NodeCounts, cannot_arm
from qvla_ros.nodes.policy.commands import ChunksOnly, Commands
from qvla_ros.nodes.policy.configured import Configured, configure
from qvla_ros.nodes.policy.description import NOT_ACTIVE, describe
from qvla_ros.nodes.policy.diagnostics import DiagnosticsPublisher
from qvla_ros.nodes.policy.figures import NOTHING_COMMANDED
from qvla_ros.nodes.policy.inference import Inference
from qvla_ros.nodes.policy.snapshot import Snapshot
from qvla_ros.nodes.policy.status import StatusPublisher
from qvla_ros.nodes.policy.tasks import Tasks
from qvla_ros.parameters.policy import PolicyParameters

TICK_S = 0.1  # how often inputs and the inference deadline are watched
GOODBYE_S = 0.5


class PolicyNode(ReportingLifecycleNode):
    """The policy node: what runs in each of its lifecycle states."""

    def __init__(self, cli_args: list[str] | None = None) -> None:
        super().__init__("policy", cli_args=cli_args)
        self.parameters = declare_parameters(self, PolicyParameters, cli_args)
        self._configured: Configured | None = None
        self._active: Active | None = None
        self._leaving: Inference | None = None  # of an activation that has ended
        self.hangs = False  # an inference has not ended, and only the end of the process ends it
        self._idle = ChunksOnly(NOTHING_COMMANDED)  # while it is not configured
        self._counts = NodeCounts()
        self._status = StatusPublisher(self)
        self._diagnostics = DiagnosticsPublisher(
            self, self.snapshot, self.parameters.inputs.max_image_age_s
        )
        self._tasks = Tasks(self, self)
        self._arm_service: Any = self.create_service(SetBool, "~/arm", self._on_arm)
        self._arm_order = ArmOrder(self._refuse_waiting)
        # Not on ROS time: with use_sim_time and no /clock the node must still say what it waits
        # for.
        self.create_timer(TICK_S, self._on_tick, clock=Clock(clock_type=ClockType.STEADY_TIME))

    # Lifecycle.

    def configure(self) -> None:
        started_s = time.monotonic()
        self._configured = configure(self, self.parameters, self._commands.figures())
        policy = self._configured.policy
        self.get_logger().info(
            f"bundle {policy.bundle.bundle_id} ({policy.bundle.directory}), engine "
            f"{policy.engine.name}, ready after {time.monotonic() - started_s:.1f} s"
        )
        self._status.publish(self.snapshot())

    def activate(self) -> None:
        assert self._configured is not None
        self._active = Active(
            self, self.parameters, self._configured, self._counts, self._tasks.hear, self._report
        )
        self._active.start()
        self.get_logger().info(
            "active and disarmed: chunks are marked armed after ~/arm is called with true"
        )
        self._status.publish(self.snapshot())

    def deactivate(self, reason: StopReason = StopReason.deactivated) -> None:
        if self._active is not None:
            self._active.end(reason)  # the arm is stopped first of all: the rest may take a while
            self._leaving = self._active.inference
            self._active = None
        if self._leaving is not None:
            self._wait_for(self._leaving)
            self._leaving = None
        self._status.publish(self.snapshot())

    def release(self, reason: StopReason = StopReason.deactivated) -> None:
        self.deactivate(reason)
        if self._configured is not None:
            configured = self._configured
            self._idle = ChunksOnly(configured.commands.figures())
            self._configured = None
            configured.destroy(self)

    def say_goodbye(self) -> None:
        """Stop, disarm, free the engine, and let the last status reach those who listen."""
        try:
            self.release(StopReason.shutdown)
        except QvlaError as error:
            self.get_logger().error(str(error))  # the engine is then left to the end of the process
        self._tasks.close()
        self._status.publish(self.snapshot())
        self._status.wait_for_acknowledgement(GOODBYE_S)

    def _wait_for(self, inference: Inference) -> None:
        """Raises QvlaError if it does not end in time; the engine is then still in use."""
        patience_s = 0.0 if self.hangs else self.parameters.watchdogs.inference_timeout_s
        self.hangs = not inference.stop(patience_s)
        if self.hangs:
            fix = "restart the node; raise inference_timeout_s if the engine is slow"
            raise QvlaError("inference", "still running", "an end within inference_timeout_s", fix)
        self._counts.dropped += inference.dropped

    # What tasks ask for: see TaskHost.

    def follow(self, instruction: str | None) -> None:
        """Acts on this instruction from now on, or on none.

        What is planned or being computed for another one is dropped.
        """
        if self._active is not None:
            self._active.follow(instruction)

    def instruction_error(self, instruction: str) -> str:
        """Why the policy cannot be given this instruction; empty if it can."""
        if self._configured is not None:
            try:
                self._configured.policy.require_instruction(instruction)
            except QvlaError as error:
                return str(error)
        return ""

    def is_stopping(self) -> bool:
        return self._commands.is_stopping()

    # Status and arming.

    @property
    def armed(self) -> bool:
        """Whether what is published may be acted on."""
        return self._commands.armed

    def arm(self) -> None:
        """Lets what is published from now on be acted on. QvlaError says why not."""
        if self._active is None:
            raise cannot_arm(NOT_ACTIVE)
        self._active.arm(self._tasks.settle)

    def disarm(self, reason: StopReason = StopReason.disarmed) -> None:
        """Stops the arm, if it is commanded, and marks chunks as not to be acted on.

        What waits to be armed is refused.
        """
        self._commands.disarm(reason)
        self._arm_order.stop(time.monotonic())

    @property
    def _commands(self) -> Commands:
        configured = self._configured
        return self._idle if configured is None else configured.commands

    def _on_arm(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        try:
            if request.data:
                self._arm_order.require_no_stop(time.monotonic())
                self.arm()
            else:
                self.disarm()
            response.success = True
            response.message = "armed" if request.data else "disarmed"
        except QvlaError as error:
            response.success = False
            response.message = str(error)
        self.get_logger().info(response.message)
        self._status.publish(self.snapshot())
        return response

    def _refuse_waiting(self) -> None:
        """Answers what waits at ~/arm: true is refused, false is what has just happened."""
        service = self._arm_service
        refusal = str(lost_to_stop())
        while True:
            with service.handle:
                request, header = service.handle.service_take_request(SetBool.Request)
            if header is None:
                return
            answer = refusal if request.data else "disarmed"
            service.send_response(
                SetBool.Response(success=not request.data, message=answer), header
            )
            self.get_logger().info(answer)

    def _on_tick(self) -> None:
        if self._active is not None:
            self._active.poll()
        self._status.publish(self.snapshot(), only_news=True)

    def _report(self) -> None:
        self._status.publish(self.snapshot())

    def snapshot(self) -> Snapshot:
        """What the node knows about itself now. From any thread."""
        return describe(
            self.parameters, self._counts, self._commands, self._configured, self._active
        )
