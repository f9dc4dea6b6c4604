"""The robot's side of the policy node: chunks and measurements in, standard commands out, from a
thread of its own.

What to command and when to stop is decided in qvla_ros.control; here it meets clocks, topics and
threads.
"""

from __future__ import annotations

import math
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from std_msgs.msg import Bool

from qvla_ros.bundle import ActionSpec
from qvla_ros.control.controller import Controller, ControllerSettings, Decision, StopReason
from qvla_ros.control.limits import motion_limits
from qvla_ros.control.setpoint import Setpoint, motion_spec
from qvla_ros.control.timeline import PlannedChunk
from qvla_ros.errors import QvlaError
from qvla_ros.nodes import qos
from qvla_ros.nodes.policy.control_loop import ControlLoop
from qvla_ros.nodes.policy.display import PlanDisplay
from qvla_ros.nodes.policy.gripper import GripperOutput, make_gripper
from qvla_ros.nodes.policy.outputs import CommandOutput, command_form
from qvla_ros.nodes.policy.snapshot import LoopHealth
from qvla_ros.parameters.policy import PolicyParameters

TICKS_KEPT = 1000  # to count those that a stop took
GOODBYE_S = 0.2  # for the stop command to arrive before its publisher goes


@dataclass(frozen=True)
class Stop:
    """One stop. stamp_ns: node time when its command was sent; delay_s: how long after the limit
    was passed, or after what happened was noticed, that was (steady clock; for what only a tick can
    notice, since the tick before); delay_ticks: how many ticks began in that time, the one that
    sent the command included.
    """

    reason: StopReason
    stamp_ns: int
    delay_s: float
    delay_ticks: int


@dataclass(frozen=True)
class CommandFigures:
    """What has been commanded so far. interventions: stage of the safety chain -> commands that it
    changed.

    last_stop: since it was last armed. reason: why it is disarmed, also where nothing had been
    commanded that was to be stopped; None since it is armed, and before it first was.
    """

    commands_sent: int = 0
    interventions: Mapping[str, int] = field(default_factory=dict)
    last_stop: Stop | None = None
    reason: StopReason | None = None


@dataclass(frozen=True)
class Sources:
    """What the control thread asks for at every tick; each may be called from any thread.

    measured: where the arm is, None if that is not known; refusal: why an input cannot be used,
    else empty; busy_s: for how long the present inference has been running.
    """

    measured: Callable[[], tuple[Setpoint, int] | None]
    refusal: Callable[[], str]
    busy_s: Callable[[], float]


class Commander:
    """Made at configure, which may raise QvlaError; `start`ed and `finish`ed with each activation;
    then `destroy`ed.

    earlier: what one before it has commanded, from which it counts on.
    """

    def __init__(
        self,
        node: Node,
        parameters: PolicyParameters,
        actions: ActionSpec,
        earlier: CommandFigures = CommandFigures(),
    ) -> None:
        self._node = node
        self._parameters = parameters
        self._actions = actions
        commands = parameters.commands
        hz = commands.control_hz
        self._period_s = 1.0 / hz if hz > 0 else actions.control_period_s
        _require_a_prompt_control_thread(self._period_s, parameters)
        self._form = command_form(
            commands, parameters.watchdogs.stop_action, actions, self._period_s
        )
        self._spec = motion_spec(
            actions, commands.linear_scale or None, commands.angular_scale or None
        )
        self._limits = motion_limits(
            3 if self._spec.is_pose else len(self._form.joints),
            **asdict(parameters.limits),
        )
        _require_a_workspace(self._limits.linear_low, self._limits.linear_high)
        self._lock = threading.Lock()
        self._controller = self._new_controller()
        self._controller.interventions.update(earlier.interventions)
        self._gripper: GripperOutput | None = make_gripper(
            node, commands, actions
        )  # may fail: before publishers
        self._output = CommandOutput(node, self._form, commands.output_topic)
        self._loop: ControlLoop | None = None
        self._sources: Sources | None = None
        self._deadman: Any = None
        self._event_s = self._enabled_s = time.monotonic()
        self._ticks_s: deque[float] = deque([self._event_s], maxlen=TICKS_KEPT)
        self._enabled = False
        self._input_ns = 0
        self._measured_ns: int | None = None
        self._orders = self._orders_done = 0
        self._last_stop: Stop | None = None
        self._silent_reason: StopReason | None = None  # of a disarming that no stop had to tell
        self.error = ""
        self._commands_sent = earlier.commands_sent

    # Lifecycle.

    def start(self, sources: Sources) -> None:
        """Begin to tick, disarmed."""
        done = self._controller.interventions
        self._controller = self._new_controller()
        self._controller.interventions.update(done)
        self._sources = sources
        self.error = ""
        if self._parameters.watchdogs.deadman:
            # Best effort hears reliable publishers too; what is lost on the way is silence, and
            # silence stops the arm.
            arguments = qos.subscribed(qos.SENSOR)
            self._deadman = self._node.create_subscription(
                Bool, "~/enable", self._on_enable, **arguments
            )
        self._loop = ControlLoop(self._tick, self._period_s)

    def finish(self, reason: StopReason) -> None:
        """Stop the arm if it was commanded, and end the thread. Returns when the stop command has
        gone out.
        """
        if self._loop is None:
            return
        self.disarm(reason)
        self._loop.stop()
        self._tick()  # the thread may have ended before it saw the order
        self._loop = None
        if self._deadman is not None:
            self._node.destroy_subscription(self._deadman)
            self._deadman = None
        self._output.wait_for_acknowledgement(GOODBYE_S)

    def destroy(self) -> None:
        """After `finish`: no more publishers."""
        self._output.destroy()
        if self._gripper is not None:
            self._gripper.destroy()

    # What happens: from any thread.

    @property
    def armed(self) -> bool:
        return self._controller.armed

    def arm(self) -> None:
        """Commands may go out from the next chunk on. QvlaError says why not: deadman, no
        measurement, stale input.
        """
        assert self._sources is not None
        refusal = self._sources.refusal()
        measured = self._sources.measured()
        if refusal:
            raise QvlaError("arming", refusal, "usable inputs", "mend the input, then arm again")
        with self._lock:
            self._controller.arm(None if measured is None else measured[0], self._now_ns())
            self._last_stop = self._silent_reason = None
            if self._gripper is not None:
                self._gripper.begin()

    def is_stopping(self) -> bool:
        """True while the stop action is still to be sent."""
        return self._loop is not None and self._orders != self._orders_done

    def disarm(self, reason: StopReason) -> None:
        """The next tick stops the arm, if it was commanded."""
        with self._lock:
            self._event_s = time.monotonic()
            self._orders = self._orders + 1
            self._controller.disarm(reason)

    def fault(self, reason: StopReason) -> None:
        """As disarm, for what went wrong."""
        with self._lock:
            self._event_s = time.monotonic()
            self._orders = self._orders + 1
            self._controller.fault(reason)

    def observe(self, stamp_ns: int) -> None:
        """A complete observation came; stamp_ns: of the oldest sample in it."""
        with self._lock:
            self._input_ns = stamp_ns
            self._controller.feed_input(stamp_ns)

    def plan(self, chunk: PlannedChunk) -> int | None:
        """A new chunk takes over from where its time has come; see Controller.set_chunk."""
        with self._lock:
            self._event_s = time.monotonic()
            return self._controller.set_chunk(chunk, self._now_ns())

    def flush(self) -> None:
        """Forget what was planned, and what is being computed from earlier observations."""
        with self._lock:
            self._controller.flush(self._now_ns())

    def display(self) -> PlanDisplay:
        """A publisher that shows what is planned; its owner destroys it."""
        form = self._form
        step_dt_s = self._actions.control_period_s
        return PlanDisplay(self._node, self._spec, form.frame, form.joints, step_dt_s)

    # What it is like: from any thread.

    def health(self) -> LoopHealth | None:
        """Of the control thread; None while inactive."""
        return None if self._loop is None else self._loop.health()

    def figures(self) -> CommandFigures:
        """Since configure."""
        with self._lock:
            stop = self._last_stop
            reason = self._silent_reason
            reason = reason if stop is None else stop.reason
            return CommandFigures(
                self._commands_sent, dict(self._controller.interventions), stop, reason
            )

    def plan_ahead(self) -> tuple[float, NDArray[np.float64]]:
        """How long the plan goes on, s, and its actions in force and to come, [m, A]."""
        now_ns = self._now_ns()
        with self._lock:
            return self._controller.timeline.remaining_s(
                now_ns
            ), self._controller.timeline.upcoming(now_ns)

    # The control thread.

    def _tick(self) -> None:
        try:
            self._step(*self._sense())
        except Exception:
            self.error = f"the control thread failed: {traceback.format_exc()}"
            with suppress(
                Exception
            ):  # whatever went wrong: the arm must be told to stop before anything else
                self.fault(StopReason.internal_error)
                self._step(None, "", 0.0)

    def _sense(self) -> tuple[Setpoint | None, str, float]:
        """What is measured if that is new, what refused, and for how long the inference has been
        running, s.
        """
        assert self._sources is not None
        newest = self._sources.measured()
        stamp_ns = None if newest is None else newest[1]
        measured = None if newest is None or stamp_ns == self._measured_ns else newest[0]
        self._measured_ns = stamp_ns
        return measured, self._sources.refusal(), self._sources.busy_s()

    def _step(self, measured: Setpoint | None, refusal: str, busy_s: float) -> None:
        with self._lock:
            steady_s = time.monotonic()
            now_ns = self._now_ns()
            if refusal and self._controller.armed:
                self._event_s = math.nextafter(self._ticks_s[-1], math.inf)
                self._controller.fault(StopReason.bad_input)
            decision = self._controller.tick(now_ns, steady_s, measured, busy_s)
            motion = self._controller.motion
            orders = self._orders
            if decision.stop is None and not self._controller.armed:
                self._silent_reason = self._controller.reason
        self._send(decision, motion, now_ns)
        if decision.stop is not None:
            passed_s = self._passed_s(decision.stop, now_ns, steady_s, busy_s)
            ticks = 1 + sum(tick_s >= passed_s for tick_s in self._ticks_s)
            with self._lock:
                if not self._controller.armed:  # again, already: then the stop is no news
                    self._last_stop = Stop(
                        decision.stop, now_ns, time.monotonic() - passed_s, ticks
                    )
        self._ticks_s.append(steady_s)
        self._orders_done = orders

    def _send(self, decision: Decision, motion: Any, now_ns: int) -> None:
        if decision.command is not None:
            self._output.send(motion, now_ns)
            if self._gripper is not None and decision.command.gripper is not None:
                self._gripper.send(float(decision.command.gripper))
            self._commands_sent += 1
        elif decision.stop is not None and self._form.stop_action == "zero":
            self._output.send_zero(now_ns)
            self._commands_sent += 1

    def _passed_s(self, reason: StopReason, now_ns: int, steady_s: float, busy_s: float) -> float:
        """When the limit was passed that led to a stop, steady clock."""
        settings = self._controller.settings
        end_ns = self._controller.plan_end_ns
        if reason is StopReason.stale_input:
            return steady_s - ((now_ns - self._input_ns) * 1e-9 - settings.max_image_age_s)
        if reason is StopReason.late_inference and busy_s > settings.inference_timeout_s:
            return steady_s - (busy_s - settings.inference_timeout_s)
        if reason is StopReason.plan_exhausted and end_ns is not None:
            return steady_s - ((now_ns - end_ns) * 1e-9 - settings.max_command_age_s)
        if reason is StopReason.deadman_lost:
            return (
                self._enabled_s + settings.deadman_timeout_s if self._enabled else self._enabled_s
            )
        if reason in (StopReason.clock_jump, StopReason.tracking_error, StopReason.bad_measurement):
            return math.nextafter(self._ticks_s[-1], math.inf)  # some time since the last tick
        return self._event_s

    def _new_controller(self) -> Controller:
        given = self._parameters.watchdogs
        settings = ControllerSettings(
            period_s=self._period_s,
            max_image_age_s=self._parameters.inputs.max_image_age_s,
            inference_timeout_s=given.inference_timeout_s,
            max_command_age_s=given.max_command_age_s,
            deadman_timeout_s=given.deadman_timeout_s if given.deadman else 0.0,
            max_clock_jump_s=given.max_clock_jump_s,
            stop_action=self._form.stop_action,
            max_linear_lead=given.max_linear_lead,
            max_angular_lead_rad=given.max_angular_lead_rad,
            use_sim_time=self._parameters.use_sim_time,
            follow_measured=self._form.output == "twist",
        )
        return Controller(settings, self._spec, self._limits, self._parameters.commands.blend_steps)

    def _on_enable(self, message: Bool) -> None:
        with self._lock:
            now_s = time.monotonic()
            if message.data or self._enabled:  # a `false` that repeats itself is no later release
                self._enabled_s = now_s
            self._enabled = message.data
            self._controller.feed_deadman(message.data, now_s)

    def _now_ns(self) -> int:
        return self._node.get_clock().now().nanoseconds


def _require_a_prompt_control_thread(period_s: float, parameters: PolicyParameters) -> None:
    """Stops are sent by ticks: a limit in time that is shorter than a period would be none."""
    watchdogs = parameters.watchdogs
    limits_s = {
        "max_image_age_s": parameters.inputs.max_image_age_s,
        "inference_timeout_s": watchdogs.inference_timeout_s,
        "max_command_age_s": watchdogs.max_command_age_s,
        "max_clock_jump_s": watchdogs.max_clock_jump_s,
    }
    if watchdogs.deadman:
        limits_s["deadman_timeout_s"] = watchdogs.deadman_timeout_s
    shortest = min(limits_s, key=lambda name: limits_s[name])
    if period_s > limits_s[shortest]:
        hz = parameters.commands.control_hz
        found = f"{hz:g}, which is a command every {period_s:g} s"
        expected = (
            f"a period within {shortest} = {limits_s[shortest]:g} s: a stop waits for the next one"
        )
        raise QvlaError("parameter control_hz", found, expected, "-p control_hz:=100.0")


def _require_a_workspace(low: NDArray[np.float64], high: NDArray[np.float64]) -> None:
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        fix = "give the corners of the space (or the joint limits) that commands must never leave"
        raise QvlaError(
            "parameters linear_low and linear_high",
            f"{low} to {high}",
            "finite limits on every axis",
            fix,
        )
