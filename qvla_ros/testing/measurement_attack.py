"""Attacks a controller with measurements that no arm can have made. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from qvla_ros.control import rotation
from qvla_ros.control.controller import Controller
from qvla_ros.control.limits import MotionLimits, motion_limits
from qvla_ros.control.measurement import REST_S
from qvla_ros.control.motion import is_usable
from qvla_ros.control.setpoint import MotionSpec, Setpoint
from qvla_ros.control.settings import ControllerSettings
from qvla_ros.control.stop_reason import StopReason
from qvla_ros.control.timeline import PlannedChunk
from qvla_ros.errors import QvlaError

PERIOD_S = 0.02
BOX = 0.5
VELOCITY = 0.6
ACCELERATION = 2.0
STOP_DECELERATION = 2.0 * ACCELERATION
ANGULAR_VELOCITY = 1.5
ANGULAR_ACCELERATION = 6.0
LIMITS: MotionLimits = motion_limits(
    3, -BOX, BOX, 0.02, VELOCITY, ACCELERATION, 0.05, ANGULAR_VELOCITY, ANGULAR_ACCELERATION
)
WALLWARDS = [0.3, 0.1, -0.3, 0.2, 0.0, 0.4]  # an action, m and rad of 0.1 s
ROUNDING = 1e-9


@dataclass(frozen=True)
class Slip:
    """What is measured in place of where the arm is.

    linear: added to it, m [3]; turn_rad: about z in place of its own; None: its own. is_nan: no
    number at all.
    """

    linear: tuple[float, float, float] = (0.0, 0.0, 0.0)
    turn_rad: float | None = None
    is_nan: bool = False


class Attack:
    """An armed controller whose plan goes for the walls, and what is measured of its arm.

    kind: of the actions, of a pose. commands: the place that it was armed at, then all commands.
    stop: the last one.
    """

    def __init__(self, kind: str, start: Setpoint) -> None:
        self.controller = Controller(
            ControllerSettings(
                PERIOD_S, 10.0, 10.0, 10.0, max_linear_lead=0.05, max_angular_lead_rad=0.2
            ),
            MotionSpec(kind, 1.0, 1.0, None),
            LIMITS,
        )
        self.commands: list[Setpoint] = []
        self.stop: StopReason | None = None
        self._at = start
        self._ros_ns = 10**18
        self._steady_s = 100.0
        self.rest(start)
        assert self.arm(start)

    def rest(self, place: Setpoint) -> None:
        """Periods in which it is measured there, as many as arming asks for."""
        for _ in range(math.ceil(REST_S / PERIOD_S) + 2):
            self.tick(place)

    def arm(self, measured: Setpoint) -> bool:
        """Whether it arms from there; the plan is given anew."""
        try:
            self.controller.arm(measured, self._ros_ns)
        except QvlaError:
            return False
        self.commands.append(measured)
        actions = np.tile(WALLWARDS, (100, 1))
        self.controller.set_chunk(PlannedChunk(self._ros_ns, 0.1, actions), self._ros_ns)
        return True

    def follow(self) -> None:
        """A period in which the arm is measured where it was commanded to."""
        self._at = self.commands[-1]
        self.tick(self._at)

    def slip(self, slip: Slip) -> None:
        """A period in which it is measured somewhere else."""
        place = np.full(3, math.nan) if slip.is_nan else self._at.linear + np.array(slip.linear)
        turned = self._at.quaternion_xyzw
        if slip.turn_rad is not None:
            turned = rotation.from_rotation_vector([0.0, 0.0, slip.turn_rad])
        self.tick(Setpoint(place, turned))

    def tick(self, measured: Setpoint | None) -> None:
        """One period with this measurement."""
        self._steady_s += PERIOD_S
        self._ros_ns += round(PERIOD_S * 1e9)
        self.controller.feed_input(self._ros_ns)
        decision = self.controller.tick(self._ros_ns, self._steady_s, measured)
        self.stop = decision.stop or self.stop
        if decision.command is not None:
            self.commands.append(decision.command)

    def run_out(self) -> None:
        """Until no stop is under way, or for two seconds."""
        for _ in range(round(2.0 / PERIOD_S)):
            if not self.controller.is_stopping:
                return
            self.tick(None)

    def breach(self) -> str:
        """Which limit the commands breach, the box among them; empty if none."""
        if not all(is_usable(command) for command in self.commands):
            return "a number that is not finite"
        places = np.array([command.linear for command in self.commands])
        if np.abs(places).max() > BOX:
            return f"the box: {places[np.abs(places).max(axis=1) > BOX][0]}"
        velocities = np.diff(places, axis=0, prepend=places[:1]) / PERIOD_S
        if np.abs(velocities).max() > VELOCITY * (1.0 + ROUNDING):
            return f"the velocity: {np.abs(velocities).max()}"
        changes = np.abs(np.diff(velocities, axis=0)).max(initial=0.0) / PERIOD_S
        if changes > STOP_DECELERATION * (1.0 + ROUNDING) + ROUNDING:
            return f"the acceleration: {changes}"
        turns = np.array([command.quaternion_xyzw for command in self.commands])
        rates = np.linalg.norm(rotation.between(turns[:-1], turns[1:]), axis=1) / PERIOD_S
        if rates.max(initial=0.0) > ANGULAR_VELOCITY * (1.0 + ROUNDING):
            return f"the turn: {rates.max()}"
        return "" if not self.controller.is_stopping else "a stop that does not end"
