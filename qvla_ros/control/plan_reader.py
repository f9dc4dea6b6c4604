"""Reads off the plan where it wants the robot, a period at a time."""

from __future__ import annotations

from qvla_ros.control.pace import EARLY
from qvla_ros.control.setpoint import MotionSpec, Setpoint, advance
from qvla_ros.control.timeline import ChunkTimeline, PlannedChunk

LATE = 1.5  # periods that the plan may lie behind the clock before the time between is given up


class PlanReader:
    """The plan on the clock, and up to where it has been carried out. Not thread-safe.

    timeline: the chunks. end_ns: when the last planned step ends or the plan was flushed, ROS time;
    None from `begin` on until there is a plan.
    """

    def __init__(
        self, period_s: float, use_sim_time: bool, spec: MotionSpec, blend_steps: int
    ) -> None:
        self.timeline = ChunkTimeline(blend_steps, spec)
        self.end_ns: int | None = None
        self._period_ns = round(period_s * 1e9)
        self._half_period_ns = round((1.0 - EARLY) * period_s * 1e9)
        self._use_sim_time = use_sim_time
        self._spec = spec
        # Where an absolute plan is now; deltas go from the last command instead.
        self._goal: Setpoint | None = None
        self._done_ns = 0  # up to where it was carried out

    def begin(self, setpoint: Setpoint, now_ns: int) -> None:
        """Starts anew from `setpoint`; chunks made from images stamped before now are refused."""
        self.end_ns = None
        self._done_ns = now_ns
        self.flush(now_ns, setpoint)

    def flush(self, now_ns: int, setpoint: Setpoint | None) -> None:
        """Forgets the plan and stays at `setpoint`, the last command, instead of going on to where
        the plan would be by now. Chunks made from images stamped before now are refused.
        """
        self.timeline.flush(now_ns)
        if setpoint is not None:
            self._goal = setpoint
        if self.end_ns is not None:
            self.end_ns = min(self.end_ns, now_ns)

    def add(self, chunk: PlannedChunk, now_ns: int) -> int | None:
        """See ChunkTimeline.add."""
        skipped = self.timeline.add(chunk, now_ns)
        self.end_ns = self.timeline.end_ns() or self.end_ns
        return skipped

    def has_begun(self, now_ns: int) -> bool:
        """Whether a step is in force."""
        return self.timeline.at(now_ns) is not None

    def skip_to(self, now_ns: int) -> None:
        """Carry out nothing of what was planned for before now."""
        self._done_ns = now_ns

    def is_ahead(self, now_ns: int) -> bool:
        """Whether simulated time has not come to the next step yet: the simulation is slow."""
        return self._use_sim_time and now_ns < self._done_ns + self._half_period_ns

    def advance(self, command: Setpoint, now_ns: int) -> tuple[Setpoint, float]:
        """Where the plan wants the robot after one more period, and how much of the plan's time
        that takes, s. command: the last one, from which deltas go.

        The plan is read in steps of exactly one period while the ticks come about as often, so that
        a late wake-up is not passed on to the robot as a jerk. What a longer stall has missed is
        not made up for; a /clock that moves on in steps longer than a period is no stall, and its
        steps are the plan's.
        """
        next_ns = self._done_ns + self._period_ns
        late = EARLY if self._use_sim_time else LATE
        in_time = -EARLY * self._period_ns <= now_ns - next_ns <= late * self._period_ns
        end_ns = next_ns if in_time else now_ns
        missed_ns = self._done_ns if self._use_sim_time else end_ns - self._period_ns
        begin_ns = min(max(self._done_ns, missed_ns), end_ns)
        self._done_ns = end_ns
        goal = command if self._spec.is_delta or self._goal is None else self._goal
        for step, start_ns, stop_ns in self.timeline.between(begin_ns, end_ns):
            whole_ns = step.end_ns - (step.begin_ns if self._spec.is_delta else start_ns)
            goal = advance(goal, step.action, self._spec, (stop_ns - start_ns) / whole_ns)
        self._goal = goal
        return goal, (end_ns - begin_ns) * 1e-9
