"""In any order of events a stop is one stop, and nothing is commanded while disarmed.

The next tick notices every limit.
"""

from __future__ import annotations

import math

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from qvla_ros.control.controller import Controller
from qvla_ros.control.limits import motion_limits
from qvla_ros.control.setpoint import MotionSpec, Setpoint
from qvla_ros.control.settings import ControllerSettings
from qvla_ros.control.stop_reason import StopReason
from qvla_ros.control.timeline import PlannedChunk
from qvla_ros.errors import QvlaError

PERIOD_S = 0.1
DT_S = 0.1
LIMITS = motion_limits(2, -1.0, 1.0, 0.2, 1.5, 5.0)
SETTINGS = ControllerSettings(
    PERIOD_S,
    max_image_age_s=0.55,
    inference_timeout_s=0.4,
    max_command_age_s=0.25,
    deadman_timeout_s=0.75,
    max_clock_jump_s=0.3,
    max_linear_lead=0.35,
    measured_velocity_margin=math.inf,  # what is measured jumps here; see test_measurement.py
)
REASONS = st.sampled_from(list(StopReason))
NUMBERS = st.floats(-2.0, 2.0)


class Sequences(RuleBasedStateMachine):
    """Feeds a controller; what must follow is worked out here anew, from what was fed."""

    @initialize(
        kind=st.sampled_from(["joint_position", "delta_joint_position"]),
        blend_steps=st.integers(0, 2),
    )
    def start(self, kind: str, blend_steps: int) -> None:
        self.controller = Controller(
            SETTINGS, MotionSpec(kind, 1.0, 1.0, None), LIMITS, blend_steps
        )
        self.ros_ns = 10**18
        self.steady_s = 50.0
        self.last_clocks: tuple[int, float] | None = None
        self.input_ns = self.plan_end_ns = self.measured_s = None
        self.enabled = False
        self.enabled_s = -math.inf
        self.measured = np.zeros(2)
        self.seen: list[tuple[float, np.ndarray]] = []
        self.command: np.ndarray | None = None
        self.sent = self.owes_stop = self.brakes = self.has_braked = False
        self.velocity = np.zeros(2)
        self.yields_to: np.ndarray | None = None
        self.command_times: list[float] = []

    @rule()
    def arm(self) -> None:
        fresh = self.input_ns is not None and abs(self.ros_ns - self.input_ns) <= 0.55e9
        stopping = self.owes_stop or self.brakes
        held = self.enabled and self.steady_s - self.enabled_s <= 0.75
        usable = np.isfinite(self.measured).all() and self._at_rest()
        may = not stopping and held and fresh and usable
        if self.controller.armed:
            self.controller.arm(None, self.ros_ns)
            return
        try:
            self.controller.arm(Setpoint(self.measured), self.ros_ns)
        except QvlaError:
            assert not may
            return
        assert may
        self.plan_end_ns = self.measured_s = None
        self.command = self.measured
        self.velocity = np.zeros(2)

    def _at_rest(self) -> bool:
        since_s = max((at_s for at_s, _ in self.seen), default=0.0) - 0.25
        before = [place for at_s, place in self.seen if at_s <= since_s][-1:]
        recent = before + [place for at_s, place in self.seen if at_s > since_s]
        return bool(before) and all(
            np.abs(place - self.measured).max() <= 0.005 for place in recent
        )

    @rule(reason=REASONS)
    def disarm(self, reason: StopReason) -> None:
        self._disarmed()
        self.controller.disarm(reason)

    @rule(
        age_s=st.floats(0.0, 0.5),
        values=st.lists(NUMBERS, min_size=1, max_size=10),
        bad=st.integers(0, 12),
    )
    def plan(self, age_s: float, values: list[float], bad: int) -> None:
        actions = np.repeat(np.array(values)[:, None], 3 if bad == 1 else 2, axis=1)
        actions[0, 0] = math.nan if bad == 0 else actions[0, 0]
        if bad < 2:
            self._disarmed()
        stamp_ns = self.ros_ns - round(age_s * 1e9)
        skipped = self.controller.set_chunk(PlannedChunk(stamp_ns, DT_S, actions), self.ros_ns)
        assert skipped is None or self.controller.armed
        if skipped is not None and skipped < len(values):
            self.plan_end_ns = stamp_ns + round(len(values) * DT_S * 1e9)

    @rule()
    def flush(self) -> None:
        self.controller.flush(self.ros_ns)
        self.plan_end_ns = None if self.plan_end_ns is None else min(self.plan_end_ns, self.ros_ns)

    @rule(age_s=st.sampled_from([-1.0, 0.0, 0.1, 0.5, 0.7]))
    def look(self, age_s: float) -> None:
        self.input_ns = self.ros_ns - round(age_s * 1e9)
        self.controller.feed_input(self.input_ns)

    @rule(enabled=st.sampled_from([True, True, True, False]))
    def hold_deadman(self, enabled: bool) -> None:
        self.enabled = enabled
        self.enabled_s = self.steady_s
        self.controller.feed_deadman(enabled, self.steady_s)

    @rule(jump_s=st.floats(-1.0, 1.0))
    def jump(self, jump_s: float) -> None:
        self.ros_ns += round(jump_s * 1e9)

    @rule(count=st.integers(1, 6))
    def all_well(self, count: int) -> None:
        """As most of the time is: else few sequences would get as far as moving."""
        for _ in range(count):
            if not self.controller.armed:
                self.measured = np.zeros(2) if self.command is None else self.command
                for _ in range(4):  # until it was seen at rest for long enough
                    self.tick(PERIOD_S, moves=False, busy_s=0.0, measures=True)
            self.look(0.0)
            self.hold_deadman(True)
            self.arm()
            self.plan(0.0, [0.1] * 4, bad=12)
            self.tick(PERIOD_S, moves=True, busy_s=0.0, measures=True)

    @rule(
        seconds=st.sampled_from([0.001, 0.02, 0.05, PERIOD_S, PERIOD_S, 0.12, 0.3]),
        moves=st.booleans(),
        busy_s=st.sampled_from([0.0, 0.1, 0.39, 0.41]),
        measures=st.sampled_from([True, True, False, None]),
    )
    def tick(self, seconds: float, moves: bool, busy_s: float, measures: bool | None) -> None:
        self.steady_s += seconds
        self.ros_ns += round(seconds * 1e9)
        if moves and self.command is not None:
            self.measured = self.command
        measured = (
            None if measures is None else self.measured if measures else self.measured * math.nan
        )
        if measured is not None and np.isfinite(measured).all():
            self.seen.append((self.steady_s, measured))
        limit_passed = self.controller.armed and self._limit_passed(measured, busy_s)
        if limit_passed:
            self._disarmed()
        armed = self.controller.armed
        decision = self.controller.tick(
            self.ros_ns, self.steady_s, None if measured is None else Setpoint(measured), busy_s
        )
        self.last_clocks = self.ros_ns, self.steady_s

        if limit_passed:
            assert not self.controller.armed
        else:
            assert self.controller.armed == armed  # nothing stops without a limit passed
        assert (decision.stop is not None) == self.owes_stop
        if decision.stop is not None:
            self.owes_stop = False
            self.brakes = True
            self.has_braked = False
            yields = decision.stop is StopReason.tracking_error and limit_passed
            self.yields_to = measured if yields else None
            assert decision.command is not None
            assert decision.stop is self.controller.reason
        if decision.command is not None:
            assert self.controller.armed or self.brakes
            self._commanded(decision.command.linear, is_first=decision.stop is not None)

    def _braked(self, velocity: np.ndarray) -> None:
        """It slows down by 10 per s^2 and axis; then it may go back to where it was measured."""
        slower = np.sign(self.velocity) * np.maximum(np.abs(self.velocity) - 1.0, 0.0)
        if not self.has_braked:
            np.testing.assert_allclose(velocity, slower, atol=1e-9)
            self.has_braked = bool(np.abs(slower).max() < 1e-9)
        self.brakes = not self.has_braked
        if self.yields_to is not None:
            self.brakes = self.controller.is_stopping
        if not self.brakes:
            assert not self.controller.is_stopping
            assert not velocity.any()

    def _commanded(self, now: np.ndarray, is_first: bool) -> None:
        """is_first: the first command of a stop, which comes at once."""
        assert self.command is not None
        velocity = (now - self.command) / PERIOD_S
        if self.brakes:
            self._braked(velocity)
        self.velocity = velocity
        assert (np.abs(now) <= np.maximum(1.0, np.abs(self.command))).all()
        assert (np.abs(now - self.command) <= 0.15).all()  # the lower of 0.2 and 1.5 / s
        self.command = now
        self.sent = self.controller.armed
        if is_first:
            return
        assert all(
            self.steady_s - last_s >= 0.5 * PERIOD_S - 1e-9 for last_s in self.command_times[-1:]
        )
        self.command_times.append(self.steady_s)
        for count, since_s in enumerate(reversed(self.command_times), start=1):
            assert count <= (self.steady_s - since_s) / PERIOD_S + 2.0 + 1e-6

    def _disarmed(self) -> None:
        if self.controller.armed and self.sent:
            self.owes_stop = True
            self.sent = False

    def _limit_passed(self, measured: np.ndarray | None, busy_s: float) -> bool:
        if measured is not None or self.measured_s is None:
            self.measured_s = self.steady_s
        drift_s = 0.0
        if self.last_clocks is not None:
            drift_s = (self.ros_ns - self.last_clocks[0]) * 1e-9 - (
                self.steady_s - self.last_clocks[1]
            )
        stale = self.input_ns is None or abs(self.ros_ns - self.input_ns) > 0.55e9
        bad = measured is not None and not np.isfinite(measured).all()
        ahead = (
            measured is not None
            and self.command is not None
            and np.abs(self.command - measured).max() > 0.35
        )
        exhausted = self.plan_end_ns is not None and self.ros_ns - self.plan_end_ns > 0.25e9
        return bool(
            abs(drift_s) > 0.3
            or not self.enabled
            or self.steady_s - self.enabled_s > 0.75
            or self.steady_s - self.measured_s > 0.55
            or stale
            or bad
            or ahead
            or exhausted
            or busy_s > 0.4
        )


TestSequences = Sequences.TestCase
TestSequences.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
