"""Decides when a robot is commanded, when it is stopped and why.

It is a state machine that a control thread ticks.

Time comes in as numbers; nothing here sleeps, publishes or reads a clock. Not thread-safe: those
who tick it and feed it hold one lock.

Every stop disarms, whatever its reason; the robot moves again only after it is armed by hand. A
stop is decided once, and only if something was commanded since the last one: a robot that was
commanded nothing is not commanded to hold. The tick that decides it sends its first command, and
those after it send more until the command is at rest (see qvla_ros.control.stopping). Nothing else
is planned or armed meanwhile.

The limits on motion take commands as one period apart (see Pace), as the robot's own controller
does that interpolates between them. After a longer gap that one comes to rest where it was last
sent, so the next command starts from less speed, and soon from none. On simulated time those are
periods of the simulated clock: where it is slow, not every tick commands; where it is fast, a
command covers, and is limited by, all the time that has passed.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np

from qvla_ros.control.arming import (
    inside_box,
    require_deadman,
    require_fresh_input,
    require_ready,
    usable_start,
)
from qvla_ros.control.course import FIXED_SHARE, Course
from qvla_ros.control.decision import Decision
from qvla_ros.control.limits import MotionLimits, stop_limits
from qvla_ros.control.measurement import MeasuredTrack
from qvla_ros.control.motion import MotionState, at_rest, is_usable
from qvla_ros.control.pace import Pace
from qvla_ros.control.plan_reader import PlanReader
from qvla_ros.control.safety_chain import STAGES, limit_motion
from qvla_ros.control.sent_velocities import HELD_S
from qvla_ros.control.setpoint import MotionSpec, Setpoint
from qvla_ros.control.settings import ControllerSettings
from qvla_ros.control.stop_reason import StopReason
from qvla_ros.control.stopping import Stop, advance_stop, advance_stop_ahead, slowed
from qvla_ros.control.timeline import PlannedChunk
from qvla_ros.control.velocity_feedback import VelocityFeedback
from qvla_ros.control.watchdogs import (
    Clocks,
    Deadman,
    Passed,
    Tick,
    first_passed,
    has_jumped,
    just_after,
)
from qvla_ros.errors import QvlaError

GAP = 1.5  # times what the last command covers: after that the robot has begun to come to rest
STANDSTILL_S = 0.5  # steady: a simulated clock that has not moved for so long may never move again
RATE = "rate"  # the stage of the safety chain that lies in time; the others: safety_chain.STAGES


class Controller:
    """See the module. `now_ns` is ROS time, `steady_s` the monotonic clock.

    armed; reason: why it was last disarmed, None since it is armed; motion: the last command with
    its velocities, None before the first arming; interventions: ticks in which a stage of STAGES or
    RATE changed the command; plan: what is planned.

    braking: the limits of a stop, see stop_limits; None: its defaults.
    """

    def __init__(
        self,
        settings: ControllerSettings,
        spec: MotionSpec,
        limits: MotionLimits,
        blend_steps: int = 0,
        braking: MotionLimits | None = None,
    ) -> None:
        self.settings = settings
        self.plan = PlanReader(settings.period_s, settings.use_sim_time, spec, blend_steps)
        self.interventions: Counter[str] = Counter(dict.fromkeys((*STAGES, RATE), 0))
        self.armed = False
        self.reason: StopReason | None = None
        self.motion: MotionState | None = None
        self._spec = spec
        self._limits = limits
        self._braking = stop_limits(limits) if braking is None else braking
        self._pace = Pace(settings.period_s)
        self._stop: Stop | None = None
        self._stops_at_once = False
        self._course: Course | None = None  # of outputs that are sent ahead of their time
        if settings.look_ahead_s > 0.0:
            self._course = Course(
                limits,
                self._braking,
                settings.period_s,
                settings.look_ahead_s,
                settings.even_tail,
                # Simulations wait for no message, and their clocks move on in long steps.
                fixed_share=0.0 if settings.use_sim_time else FIXED_SHARE,
            )
        self._sent = False  # something since the last stop
        self._clocks: Clocks | None = None  # of the last tick
        self._commanded: Clocks | None = None  # of the last command
        self._input_ns: int | None = None
        self._measured_s: float | None = None
        self._track = MeasuredTrack(limits, settings.measured_velocity_margin)
        self._deadman = Deadman()
        self._heard_s = math.inf
        self._armed_s = math.inf
        self._ready = False
        self._feedback: VelocityFeedback | None = None  # of outputs that are velocities
        if settings.follow_measured and spec.is_delta:
            self._feedback = VelocityFeedback(
                settings.period_s, settings.reaction_time_s, settings.following_window_s
            )

    # What happens between two ticks.

    def arm(self, measured: Setpoint | None, now_ns: int, measured_ns: int | None = None) -> None:
        """Starts from `measured`, a fresh one; measured_ns: as in `tick`.

        QvlaError if anything would stop the robot at once, or the arm is outside the box or not at
        rest. Armed: no effect.

        Chunks from before are forgotten, and chunks made from images stamped before now are
        refused.
        """
        if self.armed:
            return
        if self._stop is not None:
            found = f"the stop {self._stop.reason.name}, which is still braking"
            raise QvlaError("arm", found, "commands at rest", "call ~/arm again")
        state = usable_start(measured, self._spec, self._limits)
        require_fresh_input(self._input_ns, now_ns, self.settings)
        last = Clocks(now_ns, -math.inf) if self._clocks is None else self._clocks
        at_s = self._measured_at_s(measured_ns, last)
        self._track.require_arm_at_rest(state, at_s, self._robot_s(last))
        require_deadman(self._deadman, last.steady_s, self.settings)
        self._armed_s = last.steady_s if self._clocks is not None else math.inf
        require_ready(self._ready, self.settings)
        self.armed = True
        self.reason = None
        self._sent = False
        self._stops_at_once = False
        start = inside_box(state, self._limits)
        self.motion = at_rest(start)
        if self._feedback is not None:
            self._feedback.clear()
        self._measured_s = None
        self.plan.begin(start, now_ns)

    def disarm(
        self, reason: StopReason = StopReason.disarmed, happened_s: float | None = None
    ) -> None:
        """Carries out no plan any more.

        The next tick begins to brake, if anything was commanded. Not armed: no effect.

        happened_s: when what it is disarmed for happened, steady clock; None: since the last tick.
        """
        if not self.armed:
            return
        self.armed = False
        self.reason = reason
        self.plan.timeline.flush()
        if self._sent:
            if happened_s is None:
                happened_s = -math.inf if self._clocks is None else just_after(self._clocks)
            self._stop = Stop(reason, happened_s)
            self._sent = False

    @property
    def is_stopping(self) -> bool:
        """True from the decision of a stop until the tick that sends the last of its commands."""
        return self._stop is not None

    def stop_at_once(self) -> None:
        """The next tick ends a stop under way in one command, for no tick will come after it."""
        self._stops_at_once = True

    def flush(self, now_ns: int) -> None:
        """Forgets the plan, as when the instruction changes.

        Chunks made from images stamped before now are refused.
        """
        self.plan.flush(now_ns, None if self.motion is None else self.motion.setpoint)

    def set_chunk(
        self, chunk: PlannedChunk, now_ns: int, steady_s: float | None = None
    ) -> int | None:
        """Takes over a new plan; see ChunkTimeline.add. None if refused, as all are while disarmed.

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
            self.disarm(StopReason.inference_error, steady_s)
            return None
        return self.plan.add(chunk, self._ahead_ns(now_ns))

    def feed_input(self, stamp_ns: int) -> None:
        """A complete observation was received; the stamp of its newest image, ROS time."""
        self._input_ns = stamp_ns

    def feed_life(self, steady_s: float) -> None:
        """The thread that hears messages is at work. To be called often, or never."""
        self._heard_s = steady_s

    def feed_deadman(self, enabled: bool, steady_s: float) -> None:
        """Takes what ~/enable says, and when it was heard."""
        self._deadman = self._deadman.heard(enabled, steady_s)

    def feed_ready(self, ready: bool, steady_s: float) -> None:
        """Takes what the robot says: whether it takes commands; and when it was heard.

        One "no" is a stop, however short: what it was sent meanwhile is lost.
        """
        self._ready = ready
        if not ready:
            self.disarm(StopReason.robot_not_ready, steady_s)

    # The tick.

    def tick(
        self,
        now_ns: int,
        steady_s: float,
        measured: Setpoint | None,
        inference_busy_s: float = 0.0,
        measured_ns: int | None = None,
    ) -> Decision:
        """Decides what to send now. To be called once a period, armed or not.

        measured: the newest state if it came since the last tick, else None. inference_busy_s: how
        long the inference under way has been running, 0 if none is. measured_ns: the stamp of
        `measured`, None: now. All measured states have one, or none has.
        """
        before = self._clocks
        self._clocks = Clocks(now_ns, steady_s)
        if before is not None:
            self._set_course(before, self._clocks)
        is_believed = True
        if measured is not None and is_usable(measured):
            at_s = self._measured_at_s(measured_ns, self._clocks)
            is_believed = self._track.note(measured, at_s, self._robot_s(self._clocks))
        if self.armed:
            tick = self._facts(self._clocks, before, measured, is_believed, inference_busy_s)
            passed = first_passed(self.settings, tick)
            if passed is not None:
                self._stop_at(passed, measured)
        if self._stop is not None:
            return self._continue_stop(self._stop, self._clocks)
        if not self.armed or self.motion is None:
            return Decision()
        motion = self._present_motion(self.motion, self._clocks)
        if self._feedback is not None and measured is not None:
            motion = self._feedback.start(self._robot_s(self._clocks), motion, measured)
        self.motion = motion
        if self._course is not None:
            return self._command_ahead(self._course, motion, self._clocks)
        return self._command(motion, self._clocks)

    def _set_course(self, before: Clocks, now: Clocks) -> None:
        """Keeps what was sent ahead at its place in time, where the robot's clock was set."""
        if self._course is None or not self.settings.use_sim_time:
            return
        if has_jumped(self.settings, before, now):
            passed_s = now.steady_s - before.steady_s
            self._course.shift((now.ros_ns - before.ros_ns) * 1e-9 - passed_s)

    def _robot_s(self, now: Clocks) -> float:
        """Seconds of the clock that the robot moves by."""
        return now.ros_ns * 1e-9 if self.settings.use_sim_time else now.steady_s

    def _measured_at_s(self, measured_ns: int | None, now: Clocks) -> float:
        return self._robot_s(now) if measured_ns is None else measured_ns * 1e-9

    def _ahead_ns(self, now_ns: int) -> int:
        """The time of which commands are planned now, ROS time."""
        return now_ns + round(1e9 * self.settings.look_ahead_s)

    def _due(self, motion: MotionState, measured: Setpoint | None, robot_s: float) -> Setpoint:
        """Where the robot is to be at this moment; one that is sent velocities, anywhere."""
        if self._feedback is not None and measured is not None:
            return measured
        if self._course is None or not self._sent:
            return motion.setpoint
        position, _ = self._course.at(robot_s)
        return replace(motion.setpoint, linear=position)

    def _facts(
        self,
        now: Clocks,
        before: Clocks | None,
        measured: Setpoint | None,
        is_believed: bool,
        inference_busy_s: float,
    ) -> Tick:
        assert self.motion is not None
        robot_s = self._robot_s(now)
        if measured is not None or self._measured_s is None:
            self._measured_s = robot_s
        return Tick(
            now,
            before,
            command=self._due(self.motion, measured, robot_s),
            measured=measured,
            unmeasured_s=robot_s - self._measured_s,
            input_ns=self._input_ns,
            deadman=self._deadman,
            inference_busy_s=inference_busy_s,
            plan_end_ns=self.plan.end_ns,
            is_believed=is_believed,
            heard_s=self._heard_s,
            armed_s=self._armed_s,
            is_followed=self._feedback is None or self._feedback.follows(robot_s, measured),
        )

    def _stop_at(self, passed: Passed, measured: Setpoint | None) -> None:
        self.disarm(passed.reason, passed.passed_s)
        blocked = passed.reason is StopReason.tracking_error and self._track.agrees()
        if blocked and self._stop is not None:
            # Goes back to where the robot is, so that it pushes no longer at what blocks it.
            self._stop = replace(self._stop, yields_to=measured)

    def _continue_stop(self, stop: Stop, now: Clocks) -> Decision:
        reported = (None, None) if stop.is_announced else (stop.reason, stop.passed_s)
        assert self.motion is not None
        if self.settings.stop == "none":
            self._stop = None
            return Decision(None, *reported)
        if self._course is not None:
            return self._stop_ahead(self._course, stop, now)
        dt_s = self._time_to_brake_for(stop, now)
        if dt_s is None:
            return Decision()
        self.motion = self._present_motion(self.motion, now)
        if self.settings.stop == "zero":
            self.motion = replace(self.motion, setpoint=replace(self.motion.setpoint, gripper=None))
        if math.isinf(dt_s):
            self.motion = at_rest(self.motion.setpoint)
            self._stop = None
        else:
            self.motion, self._stop = advance_stop(
                stop, self.motion, self._braking, self._limits, dt_s
            )
        self._note(now)
        return Decision(self.motion, *reported)

    def _stop_ahead(self, course: Course, stop: Stop, now: Clocks) -> Decision:
        robot_s = self._robot_s(now)
        assert self.motion is not None
        motion, left = advance_stop_ahead(
            stop, self.motion, course, self._braking, self._limits, robot_s, now.steady_s
        )
        self._stop = None if self._stops_at_once else left
        if motion is None:
            return Decision()
        self.motion = motion
        decision = Decision(motion, trajectory=course.ahead(robot_s))
        if stop.is_announced:
            return decision
        return replace(decision, stop=stop.reason, passed_s=stop.passed_s)

    def _time_to_brake_for(self, stop: Stop, now: Clocks) -> float | None:
        """How much time the next command of a stop covers; None: it is not due; infinite: it is at
        rest.

        The first one is always due.
        """
        period_s = self.settings.period_s
        if self._commanded is None or self._stops_at_once:
            return math.inf
        if not self.settings.use_sim_time:
            due = not stop.is_announced or self._pace.allows(now.steady_s)
            return period_s if due else None
        if now.steady_s - self._commanded.steady_s > STANDSTILL_S:
            return math.inf
        moved_s = (now.ros_ns - self._commanded.ros_ns) * 1e-9
        due = not stop.is_announced or (
            abs(moved_s) >= period_s and self._pace.allows(now.steady_s)
        )
        return max(period_s, moved_s) if due else None

    def _present_motion(self, motion: MotionState, now: Clocks) -> MotionState:
        """The last command, slower by what a stop would have braked since it was carried out."""
        if self._commanded is None:
            return motion
        gap_s = self._robot_s(now) - self._robot_s(self._commanded)
        lasts_s = GAP * max(self.settings.period_s, motion.dt_s)
        if self._feedback is not None:  # a velocity is kept for longer, and then halted
            return at_rest(motion.setpoint) if gap_s > max(lasts_s, HELD_S) else motion
        return slowed(motion, self._braking, gap_s - lasts_s) if gap_s > lasts_s else motion

    def _note(self, now: Clocks) -> None:
        self._pace.note(now.steady_s)
        self._commanded = now
        if self._feedback is not None and self.motion is not None:
            self._feedback.note(self._robot_s(now), self.motion)

    def _command(self, motion: MotionState, now: Clocks) -> Decision:
        now_ns = now.ros_ns
        if not self._sent and not self.plan.has_begun(now_ns):
            self.plan.skip_to(now_ns)
            return Decision()
        if not self._pace.allows(now.steady_s):
            self.interventions[RATE] += 1
            return Decision()
        if self.plan.is_ahead(now_ns):
            return Decision()
        self.motion = self._next(motion, now_ns)
        self._note(now)
        self._sent = True
        return Decision(self.motion)

    def _command_ahead(self, course: Course, motion: MotionState, now: Clocks) -> Decision:
        """Plans as many commands as are due, however many ticks have been missed."""
        robot_s = self._robot_s(now)
        if not self._sent:
            ahead_ns = self._ahead_ns(now.ros_ns)
            if not self.plan.has_begun(ahead_ns):
                self.plan.skip_to(ahead_ns)
                return Decision()
            course.begin(motion.setpoint, robot_s)
            self._sent = True
            return Decision(motion, trajectory=course.ahead(robot_s))
        planned = motion = course.resumed(motion, robot_s)
        for time_s in course.due_s(robot_s):
            planned = self._next(planned, now.ros_ns + round(1e9 * (time_s - robot_s)))
            course.extend(time_s, planned)
        if planned is motion:
            return Decision()
        self.motion = planned
        return Decision(planned, trajectory=course.ahead(robot_s))

    def _next(self, motion: MotionState, plan_ns: int) -> MotionState:
        """The next command, towards where the plan wants the robot at `plan_ns`."""
        target, covered_s = self.plan.advance(motion.setpoint, plan_ns)
        if self._spec.is_delta:
            motion = replace(motion, target=None)
        period_s = self.settings.period_s
        covers_all = self.settings.use_sim_time and self._course is None
        dt_s = max(period_s, covered_s) if covers_all else period_s
        reaction_s = 0.0 if self._feedback is None else self._feedback.reaction_time_s
        limited, stages = limit_motion(target, motion, self._limits, dt_s, reaction_s)
        self.interventions.update(
            name for name, changed in zip(STAGES, stages, strict=True) if changed
        )
        return limited
