"""When a robot is commanded, when it is stopped and why: a state machine that a control thread
ticks.

Time comes in as numbers; nothing here sleeps, publishes or reads a clock. Not thread-safe: whoever
ticks it and feeds it holds one lock.

Every stop disarms, whatever its reason; the robot moves again only after it is armed by hand. A
stop is told by exactly one tick, and only if something was commanded since the last one: a robot
that was told nothing is not told to hold.

Rate: never two commands within half a period, and over any stretch of time one a period, plus two.
The limits on motion take commands as one period apart, as the robot's own controller does that
interpolates between them. On simulated time those are periods of the simulated clock: where it is
slow, not every tick commands; where it is fast, a command covers, and is limited by, all the time
that has passed.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from enum import Enum
from typing import Literal

import numpy as np

from qvla_ros.control import rotation
from qvla_ros.control.limits import (
    STAGES,
    MotionLimits,
    MotionState,
    at_rest,
    is_usable,
    limit_motion,
)
from qvla_ros.control.setpoint import MotionSpec, Setpoint, advance
from qvla_ros.control.timeline import ChunkTimeline, PlannedChunk
from qvla_ros.errors import QvlaError

RATE = "rate"  # the stage of the safety chain that lies in time; the others: limits.STAGES
# of a period: how much sooner than due a command may go out, because the one before may have been
# late
EARLY = 0.5
LATE = 1.5  # periods that the plan may lie behind the clock before the time between is given up
FIX_ARM = "see to it, then call ~/arm again"


class StopReason(Enum):
    """Why commands ended; lower case, because the names are what users read. Limits by the node's
    parameters' names.
    """

    stale_input = "no observation newer than max_image_age_s"
    bad_input = "an input cannot be used: its size, encoding, names, frame or numbers are wrong"
    clock_jump = "the clocks of ROS and of the machine parted by more than max_clock_jump_s"
    late_inference = "an inference took longer than inference_timeout_s"
    inference_error = "the inference failed, or its chunk is no plan"
    plan_exhausted = "the plan ended more than max_command_age_s ago"
    deadman_lost = "the deadman was released, or silent for deadman_timeout_s"
    tracking_error = (
        "the command leads the measured state by more than max_linear_lead or max_angular_lead_rad"
    )
    bad_measurement = "the measured state is no state, or missing for max_image_age_s"
    internal_error = "the control thread failed"
    disarmed = "disarmed by hand"
    cancelled = "the task was cancelled"
    finished = "the task ended"
    deactivated = "the node was deactivated"
    shutdown = "the node is shutting down"


@dataclass(frozen=True)
class ControllerSettings:
    """Limits in time, and what a stop commands. Names are those of the node's parameters, but for
    period_s (from control_hz) and follow_measured (from output).

    period_s: between two commands. max_image_age_s: of the newest observation's stamp, and of the
    measured state. inference_timeout_s: of one inference. max_command_age_s: how long past its last
    step a plan may keep the robot waiting. deadman_timeout_s: 0 for no deadman. max_clock_jump_s:
    between two ticks. max_linear_lead (m or rad, each axis) and max_angular_lead_rad: how far the
    command may run ahead of the measured state. use_sim_time: ROS time follows /clock.
    follow_measured: deltas go from the measured state instead of the last command. For robots that
    take velocities: their sum is no position that was commanded, and would part from where the
    robot is, and with it the box.
    """

    period_s: float
    max_image_age_s: float
    inference_timeout_s: float
    max_command_age_s: float
    deadman_timeout_s: float = 0.0
    max_clock_jump_s: float = 0.5
    stop_action: Literal["hold", "zero", "none"] = "hold"
    max_linear_lead: float = math.inf
    max_angular_lead_rad: float = math.inf
    use_sim_time: bool = False
    follow_measured: bool = False

    def __post_init__(self) -> None:
        if not self.period_s > 0.0:
            found = f"a period_s of {self.period_s}"
            raise QvlaError("parameter control_hz", found, "one above 0", "-p control_hz:=100.0")
        for name in (
            "max_image_age_s",
            "inference_timeout_s",
            "max_command_age_s",
            "max_clock_jump_s",
            "max_linear_lead",
            "max_angular_lead_rad",
        ):
            value = getattr(self, name)
            if not value > 0.0:
                fix = f"-p {name}:=0.5 (SI units)"
                raise QvlaError(f"parameter {name}", value, "a number above 0", fix)
        if not 0.0 <= self.deadman_timeout_s < math.inf:
            fix = "-p deadman_timeout_s:=0.5, or 0 for no deadman"
            raise QvlaError(
                "parameter deadman_timeout_s", self.deadman_timeout_s, "a number, 0 or above", fix
            )


@dataclass(frozen=True)
class Decision:
    """What one tick leads to: a setpoint to send, if any, and, in the one tick that tells it, the
    stop.

    With a stop, `command` is the setpoint to hold if settings.stop_action is `hold`, else None; for `zero`
    the caller sends a zero twist, for `none` nothing.
    """

    command: Setpoint | None = None
    stop: StopReason | None = None


class Controller:
    """See the module. `now_ns` is ROS time, `steady_s` the monotonic clock.

    armed; reason: why it was last disarmed, None since it is armed; motion: the last command with
    its velocities (for twists), None before the first arming; interventions: ticks in which a stage
    of STAGES or RATE changed the command; plan_end_ns: when the last planned step ends or the plan
    was flushed, None since it is armed until there is a plan.
    """

    def __init__(
        self,
        settings: ControllerSettings,
        spec: MotionSpec,
        limits: MotionLimits,
        blend_steps: int = 0,
    ) -> None:
        self.settings = settings
        self._spec = spec
        self._limits = limits
        self.timeline = ChunkTimeline(blend_steps, spec)
        self.interventions: Counter[str] = Counter(dict.fromkeys((*STAGES, RATE), 0))
        self.armed = False
        self.reason: StopReason | None = None
        self.motion: MotionState | None = None
        self.plan_end_ns: int | None = None
        self._goal: Setpoint | None = (
            None  # where an absolute plan is now; deltas go from the last command instead
        )
        self._stop: StopReason | None = None  # still to be told
        self._hold: Setpoint | None = None
        self._sent = False  # something since the last stop
        self._plan_ns = 0  # up to where the plan was carried out
        self._last_command_s = self._due_s = -math.inf
        self._clocks: tuple[int, float] | None = None  # of the last tick
        self._input_ns: int | None = None
        self._measured_s: float | None = None
        self._deadman = False
        self._deadman_s = -math.inf

    def arm(self, measured: Setpoint | None, now_ns: int) -> None:
        """Start from `measured`, a fresh one; QvlaError if anything would stop the robot at once.
        Armed: no effect.

        Chunks from before are forgotten, and chunks made from images stamped before now are
        refused.
        """
        if self.armed:
            return
        if self._stop is not None:
            raise QvlaError(
                "arm",
                f"the stop {self._stop.name} not yet sent",
                "no stop under way",
                "call ~/arm again",
            )
        if measured is None or not is_usable(measured):
            expected = "a fresh measured state, finite, its quaternion of length 1"
            value = "none" if measured is None else measured
            raise QvlaError("arm", value, expected, f"start the robot's driver; {FIX_ARM}")
        axes = self._limits.linear_low.shape
        if measured.linear.shape != axes or self._spec.is_pose != (
            measured.quaternion_xyzw is not None
        ):
            value = (
                f"{measured.linear.shape[0]} axes, orientation: "
                f"{measured.quaternion_xyzw is not None}"
            )
            expected = f"{axes[0]} axes, orientation: {self._spec.is_pose}"
            raise QvlaError(
                "arm: measured state",
                value,
                expected,
                "correct the parameter joints, or the limits",
            )
        if self._is_stale(now_ns):
            expected = "an observation within max_image_age_s"
            raise QvlaError(
                "arm", "no fresh observation", expected, f"start the cameras; {FIX_ARM}"
            )
        if self.settings.deadman_timeout_s > 0.0 and not self._holds_deadman():
            raise QvlaError(
                "arm", "the deadman is not held", "~/enable true", f"hold it; {FIX_ARM}"
            )
        self.armed = True
        self.reason = None
        self._sent = False
        self.motion = at_rest(measured)
        self._goal = measured
        self._plan_ns = now_ns
        self._measured_s = None
        self.plan_end_ns = None
        self.flush(now_ns)

    def disarm(self, reason: StopReason = StopReason.disarmed) -> None:
        """Command nothing more. The next tick tells the stop, if there is one to tell. Not armed:
        no effect.
        """
        if not self.armed:
            return
        self.armed = False
        self.reason = reason
        self.timeline.flush()
        if self._sent:
            assert self.motion is not None
            self._stop = reason
            self._hold = self.motion.setpoint
            self._sent = False

    fault = disarm  # the same, by the name of what went wrong

    def flush(self, now_ns: int) -> None:
        """Forget the plan, as when the instruction changes; chunks made from images stamped before
        now are refused.
        """
        self.timeline.flush(now_ns)
        if self.motion is not None:
            self._goal = self.motion.setpoint  # not on to where the plan would have been by now
        if self.plan_end_ns is not None:
            self.plan_end_ns = min(self.plan_end_ns, now_ns)

    def set_chunk(self, chunk: PlannedChunk, now_ns: int) -> int | None:
        """Take over a new plan; see ChunkTimeline.add. None if refused, as all are while disarmed.

        Numbers that are not finite, or another number of columns than the robot's: a stop.
        """
        if not self.armed:
            return None
        columns = (
            len(self._limits.linear_low)
            + 3 * self._spec.is_pose
            + (self._spec.gripper_index is not None)
        )
        if chunk.actions.shape[1:] != (columns,) or not np.isfinite(chunk.actions).all():
            self.disarm(StopReason.inference_error)
            return None
        skipped = self.timeline.add(chunk, now_ns)
        self.plan_end_ns = self.timeline.end_ns() or self.plan_end_ns
        return skipped

    def feed_input(self, stamp_ns: int) -> None:
        """A complete observation was received; the stamp of its newest image, ROS time."""
        self._input_ns = stamp_ns

    def feed_deadman(self, enabled: bool, steady_s: float) -> None:
        """What ~/enable said, and when it was heard."""
        self._deadman = enabled
        self._deadman_s = steady_s

    def tick(
        self, now_ns: int, steady_s: float, measured: Setpoint | None, inference_busy_s: float = 0.0
    ) -> Decision:
        """What to send now. To be called once a period, armed or not.

        measured: the newest state if it came since the last tick, else None. inference_busy_s: how
        long the inference under way has been running, 0 if none is.
        """
        clocks = self._clocks
        self._clocks = (now_ns, steady_s)
        if self.armed:
            robot_s = now_ns * 1e-9 if self.settings.use_sim_time else steady_s
            reason = self._reason_to_stop(clocks, now_ns, robot_s, measured, inference_busy_s)
            if reason is not None:
                self.disarm(reason)
            if (
                reason is StopReason.tracking_error
                and self._hold is not None
                and measured is not None
            ):
                self._hold = replace(
                    measured, gripper=self._hold.gripper
                )  # pushes no longer, but keeps its grip
        if self._stop is not None:
            return self._tell_stop()
        if not self.armed:
            return Decision()
        if (
            self.settings.follow_measured
            and self._spec.is_delta
            and measured is not None
            and self.motion is not None
        ):
            start = replace(measured, gripper=self.motion.setpoint.gripper)
            self.motion = replace(self.motion, setpoint=start)
        return self._command(now_ns, steady_s)

    def _tell_stop(self) -> Decision:
        reason = self._stop
        self._stop = None
        if self.settings.stop_action != "hold" or self._hold is None:
            return Decision(None, reason)
        self.motion = at_rest(self._hold)
        return Decision(self._hold, reason)

    def _reason_to_stop(
        self,
        clocks: tuple[int, float] | None,
        now_ns: int,
        robot_s: float,
        measured: Setpoint | None,
        inference_busy_s: float,
    ) -> StopReason | None:
        settings = self.settings
        if clocks is not None and self._has_jumped(clocks):
            return StopReason.clock_jump
        if settings.deadman_timeout_s > 0.0 and not self._holds_deadman():
            return StopReason.deadman_lost
        if measured is not None or self._measured_s is None:
            self._measured_s = robot_s
        if not (measured is None or is_usable(measured)):
            return StopReason.bad_measurement
        if measured is not None and self._leads(measured):
            return StopReason.tracking_error
        if self._is_stale(
            now_ns
        ):  # before the next: a robot that is gone takes its state with it, in the same tick
            return StopReason.stale_input
        if robot_s - self._measured_s > settings.max_image_age_s:
            return StopReason.bad_measurement
        if inference_busy_s > settings.inference_timeout_s:
            return StopReason.late_inference
        if (
            self.plan_end_ns is not None
            and (now_ns - self.plan_end_ns) * 1e-9 > settings.max_command_age_s
        ):
            return StopReason.plan_exhausted
        return None

    def _holds_deadman(self) -> bool:
        """Held, and said so lately, as of the last tick."""
        silent_s = -math.inf if self._clocks is None else self._clocks[1] - self._deadman_s
        return self._deadman and silent_s <= self.settings.deadman_timeout_s

    def _has_jumped(self, before: tuple[int, float]) -> bool:
        assert self._clocks is not None
        ros_s = (self._clocks[0] - before[0]) * 1e-9
        passed_s = self._clocks[1] - before[1]
        if self.settings.use_sim_time:  # it may run at any speed or stand still
            return not 0.0 <= ros_s <= self.settings.max_clock_jump_s
        return abs(ros_s - passed_s) > self.settings.max_clock_jump_s

    def _is_stale(self, now_ns: int) -> bool:
        """A stamp from the future is as bad: it would look fresh for too long."""
        return (
            self._input_ns is None
            or abs(now_ns - self._input_ns) * 1e-9 > self.settings.max_image_age_s
        )

    def _leads(self, measured: Setpoint) -> bool:
        assert self.motion is not None
        command = self.motion.setpoint
        if np.abs(command.linear - measured.linear).max() > self.settings.max_linear_lead:
            return True
        if command.quaternion_xyzw is None or measured.quaternion_xyzw is None:
            return False
        lead_rad = np.linalg.norm(
            rotation.between(measured.quaternion_xyzw, command.quaternion_xyzw)
        )
        return bool(lead_rad > self.settings.max_angular_lead_rad)

    def _command(self, now_ns: int, steady_s: float) -> Decision:
        if not self._sent and self.timeline.at(now_ns) is None:
            self._plan_ns = now_ns
            return Decision()  # the first step has not begun
        period_s = self.settings.period_s
        earliest_s = max(
            self._due_s - EARLY * period_s, self._last_command_s + (1.0 - EARLY) * period_s
        )
        if steady_s < earliest_s:
            self.interventions[RATE] += 1
            return Decision()
        if self.settings.use_sim_time and now_ns < self._plan_ns + round(
            (1.0 - EARLY) * period_s * 1e9
        ):
            return Decision()  # the simulation is slow
        target, covered_s = self._target(now_ns)
        assert self.motion is not None
        dt_s = max(period_s, covered_s) if self.settings.use_sim_time else period_s
        self.motion, stages = limit_motion(target, self.motion, self._limits, dt_s)
        self.interventions.update(
            name for name, changed in zip(STAGES, stages, strict=True) if changed
        )
        self._due_s = max(self._due_s, steady_s - EARLY * period_s) + period_s
        self._last_command_s = steady_s
        self._sent = True
        return Decision(self.motion.setpoint)

    def _target(self, now_ns: int) -> tuple[Setpoint, float]:
        """Where the plan wants the robot after one more period, and how much of the plan's time
        that takes, s.

        The plan is read in steps of exactly one period while the ticks come about as often, so that
        a late wake-up is not passed on to the robot as a jerk. What a longer stall has missed is
        not made up for; a /clock that moves on in steps longer than a period is no stall, and its
        steps are the plan's.
        """
        assert self.motion is not None
        assert self._goal is not None
        period_ns = round(self.settings.period_s * 1e9)
        next_ns = self._plan_ns + period_ns
        late = EARLY if self.settings.use_sim_time else LATE
        end_ns = next_ns if -EARLY * period_ns <= now_ns - next_ns <= late * period_ns else now_ns
        missed_ns = self._plan_ns if self.settings.use_sim_time else end_ns - period_ns
        begin_ns = min(max(self._plan_ns, missed_ns), end_ns)
        self._plan_ns = end_ns
        if self._spec.is_delta:
            self._goal = self.motion.setpoint
            self.motion = replace(self.motion, target=None)
        for step, start_ns, stop_ns in self.timeline.between(begin_ns, end_ns):
            whole_ns = step.end_ns - (step.begin_ns if self._spec.is_delta else start_ns)
            self._goal = advance(
                self._goal, step.action, self._spec, (stop_ns - start_ns) / whole_ns
            )
        return self._goal, (end_ns - begin_ns) * 1e-9
