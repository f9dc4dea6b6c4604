"""The safety chain: finite -> workspace box -> per step -> velocity -> acceleration. Pure, exact,
over any batch axes.

What it guarantees: in a sequence of calls with one `dt_s` and one `limits` that starts at rest, no
setpoint that comes out breaches any limit, whatever the targets are (`<=` in float64, no
tolerance). Linear limits hold for each axis alone, angular ones for the length of the rotation
vector between setpoints. A start outside the box only moves inwards. From a state that is already
too fast to stop in front of a wall, the box is kept and the acceleration is not.

The box and the acceleration hold together because a wall is braked for. Velocity changes by at most
A = a dt per command, so after a command at velocity v the shortest way to rest is dt (v - A) + dt
(v - 2A) + ... over the positive terms. A command may go at v only if its own dt v and that way fit
in front of the wall (`braking_speed`); then the next may go at v - A at least, and so on down to
rest.

A target is approached by the same rule, so a constant target that can be reached is reached without
overshoot. Relative to what, if it moves? A target where it was expected passes unchanged whenever
the limits allow it: see MotionState.

These are software limits on commands, not a certified safety function.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qvla_ros.control import rotation
from qvla_ros.control.setpoint import Setpoint
from qvla_ros.errors import QvlaError

Array = NDArray[np.float64]
# Which stages of the chain changed a target: bool [..., len(STAGES)].
Interventions = NDArray[np.bool_]

STAGES = ("finite", "box", "step", "velocity", "acceleration")
# m or rad: what lies beyond is no setpoint of any robot, and arithmetic on it would overflow
FARTHEST = 1e6
UNIT_TOLERANCE = 1e-3  # how far a quaternion's length may be from 1 before it is no rotation
NEGLIGIBLE = 1e-9  # of a limit: a smaller change is rounding, and no intervention
MAX_TURN_RAD = 3.0  # per command, limit or not: near pi the short way round is ambiguous
ENDLESS = 1e150  # stands for infinity where that would meet a zero
EPSILON = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class MotionLimits:
    """Of commands in a row. Linear ones float64 [n], in m, m/s, m/s² (or rad, ...); infinity means
    no limit.
    """

    linear_low: Array
    linear_high: Array
    max_linear_step: Array
    max_linear_velocity: Array
    max_linear_acceleration: Array
    max_angular_step_rad: float
    max_angular_velocity_rad_s: float
    max_angular_acceleration_rad_s2: float

    def __post_init__(self) -> None:
        fix = "give a number above 0, or leave it out for no limit"
        for field in fields(self):
            limit = np.asarray(getattr(self, field.name))
            if field.name.startswith("max_") and not (limit > 0.0).all():
                raise QvlaError(f"parameter {field.name}", limit.tolist(), "numbers above 0", fix)
        if not (self.linear_low < self.linear_high).all():
            value = f"{self.linear_low.tolist()} to {self.linear_high.tolist()}"
            raise QvlaError(
                "parameter linear_low",
                value,
                "low < high on every axis",
                "correct linear_low or linear_high",
            )


def motion_limits(
    axes: int,
    linear_low: ArrayLike = (),
    linear_high: ArrayLike = (),
    max_linear_step: ArrayLike = (),
    max_linear_velocity: ArrayLike = (),
    max_linear_acceleration: ArrayLike = (),
    max_angular_step_rad: float = np.inf,
    max_angular_velocity_rad_s: float = np.inf,
    max_angular_acceleration_rad_s2: float = np.inf,
) -> MotionLimits:
    """Limits of `axes` linear axes: one number each, one for all, or nothing for no limit; else
    QvlaError.
    """

    def each(name: str, value: ArrayLike, absent: float) -> Array:
        array = np.atleast_1d(np.asarray(value, np.float64))
        if array.size not in (0, 1, axes):
            fix = f"give {axes} numbers, or one for all axes, or none for no limit"
            raise QvlaError(f"parameter {name}", array.tolist(), f"{axes} numbers", fix)
        return np.full(axes, absent) if array.size == 0 else np.broadcast_to(array, (axes,)).copy()

    return MotionLimits(
        each("linear_low", linear_low, -np.inf),
        each("linear_high", linear_high, np.inf),
        each("max_linear_step", max_linear_step, np.inf),
        each("max_linear_velocity", max_linear_velocity, np.inf),
        each("max_linear_acceleration", max_linear_acceleration, np.inf),
        max_angular_step_rad,
        max_angular_velocity_rad_s,
        max_angular_acceleration_rad_s2,
    )


@dataclass(frozen=True)
class MotionState:
    """The last command: setpoint and, from the one before, velocity in m/s (or rad/s) [..., n] and
    rad/s [..., 3].

    target: what was asked for when the setpoint came out. The target's own velocity is taken from
    it, so that a target on its way is followed and one that stands still is approached without
    overshoot. None: the next target is meant from where the setpoint is, as deltas are.
    """

    setpoint: Setpoint
    linear_velocity: Array
    angular_velocity_rad_s: Array
    target: Setpoint | None = None


def at_rest(setpoint: Setpoint) -> MotionState:
    """The state that a guarantee starts from."""
    batch = setpoint.linear.shape[:-1]
    return MotionState(setpoint, np.zeros(setpoint.linear.shape), np.zeros((*batch, 3)))


def braking_speed(distance: Array, change: Array | float, dt_s: float) -> Array:
    """The highest velocity of a command that leaves room to come to rest within `distance` >= 0.

    change: by how much the velocity may change per command. With n = floor(v / change) more
    commands on the way to rest, distance = dt ((n + 1) v - change n (n + 1) / 2), solved for v.
    """
    distance = np.minimum(distance, ENDLESS)
    change = np.minimum(change, ENDLESS)
    commands = np.floor(0.5 * (np.sqrt(1.0 + 8.0 * distance / (change * dt_s)) - 1.0))
    return distance / (dt_s * (commands + 1.0)) + 0.5 * change * commands


def limit_motion(
    target: Setpoint, state: MotionState, limits: MotionLimits, dt_s: float
) -> tuple[MotionState, Interventions]:
    """The next command towards `target`, `dt_s` after the one in `state`, and which STAGES had to
    intervene.

    A target with a number that is not finite or is absurd, or with a quaternion that is no
    rotation, is refused whole: the motion comes to rest as fast as the acceleration allows, the
    gripper stays. A gripper outside 0 to 1 is clipped (stage `box`). Where every stage lets the
    target pass, it comes out as it went in.
    """
    finite = is_usable(target)
    target = _where(finite, target, state.setpoint)
    previous = None if state.target is None else _where(finite, state.target, state.setpoint)
    stages = np.zeros((*finite.shape, len(STAGES)), np.bool_)
    stages[..., 0] = ~finite

    expected = None if previous is None else previous.linear
    linear, velocity, goal, changed = _limit_linear(target.linear, state, expected, limits, dt_s)
    stages[..., 1:] |= changed
    limited = Setpoint(linear)
    wanted = Setpoint(goal)
    angular_velocity = state.angular_velocity_rad_s
    if target.quaternion_xyzw is not None:
        unit = rotation.normalize(target.quaternion_xyzw)
        expected = None if previous is None else previous.quaternion_xyzw
        quaternion, angular_velocity, changed = _limit_angular(unit, state, expected, limits, dt_s)
        stages[..., 2:] |= changed
        limited = replace(limited, quaternion_xyzw=quaternion)
        wanted = replace(wanted, quaternion_xyzw=unit)
    if target.gripper is not None:
        gripper = _within(target.gripper, 0.0, 1.0)
        stages[..., 1] |= gripper != target.gripper
        limited = replace(limited, gripper=float(gripper) if np.ndim(gripper) == 0 else gripper)
    return MotionState(limited, velocity, angular_velocity, wanted), stages


def is_usable(target: Setpoint) -> NDArray[np.bool_]:
    """Whether all numbers are finite, not absurd, and the quaternion is a rotation; one answer a
    row of the batch.
    """
    usable = (np.abs(target.linear) <= FARTHEST).all(axis=-1)  # false for nan
    if target.quaternion_xyzw is not None:
        with np.errstate(over="ignore", invalid="ignore"):
            length = rotation.length(target.quaternion_xyzw)[..., 0]
            usable = usable & (np.abs(length - 1.0) <= UNIT_TOLERANCE)
    return usable if target.gripper is None else usable & np.isfinite(target.gripper)


def _where(condition: NDArray[np.bool_], chosen: Setpoint, other: Setpoint) -> Setpoint:
    """Row by row of the batch; a gripper that is None in `other` stays as chosen, made finite."""
    if condition.all():
        return chosen
    quaternion = chosen.quaternion_xyzw
    gripper = chosen.gripper
    if quaternion is not None and other.quaternion_xyzw is not None:
        quaternion = np.where(condition[..., None], quaternion, other.quaternion_xyzw)
    if gripper is not None:
        fallback = other.gripper
        gripper = None if fallback is None else np.where(condition, gripper, fallback)
    return Setpoint(
        np.where(condition[..., None], chosen.linear, other.linear), quaternion, gripper
    )


def _preferred(
    direct: Array, behind: Array, distance: Array, change: Array | float, dt_s: float
) -> Array:
    """`direct`, which arrives at once, less the speed at which the target could not be stopped at.

    behind: from the setpoint to where the target was expected; distance: its length, along one axis
    or over all three.
    """
    too_fast = distance / dt_s - braking_speed(distance, change, dt_s)
    return direct - behind * (too_fast / np.maximum(distance, rotation.TINY))


def _limit_linear(
    target: Array, state: MotionState, previous: Array | None, limits: MotionLimits, dt_s: float
) -> tuple[Array, Array, Array, NDArray[np.bool_]]:
    """The next position, its velocity, the target inside the box, and which of STAGES[1:]
    intervened.
    """
    position = state.setpoint.linear
    velocity = state.linear_velocity
    rounding = 8.0 * EPSILON * (np.abs(position) / dt_s + np.abs(velocity))
    step_speed = _below(limits.max_linear_step / dt_s, rounding)
    top_speed = _below(limits.max_linear_velocity, rounding)
    change = _below(limits.max_linear_acceleration * dt_s, rounding)
    planned_change = _below(change, 6.0 * rounding)

    goal = _within(target, limits.linear_low, limits.linear_high)
    direct = (goal - position) / dt_s
    expected = position if previous is None else previous
    jumped = np.abs(goal - expected) > _above(np.minimum(step_speed, top_speed), rounding) * dt_s
    behind = np.where(jumped & (previous is not None), goal, expected) - position
    wanted = _preferred(direct, behind, np.abs(behind), planned_change, dt_s)

    stepped = _within(wanted, -step_speed, step_speed)
    speedy = _within(stepped, -top_speed, top_speed)
    low = np.minimum(limits.linear_low, position)
    high = np.maximum(limits.linear_high, position)
    room_below = braking_speed(position - low, planned_change, dt_s)
    room_above = braking_speed(high - position, planned_change, dt_s)
    braked = _within(speedy, -room_below, room_above)
    chosen = _within(braked, velocity - change, velocity + change)

    moved = _within(np.where(chosen == direct, goal, position + chosen * dt_s), low, high)
    stages = (
        goal != target,
        np.abs(wanted) > _above(step_speed, rounding),
        np.abs(stepped) > _above(top_speed, rounding),
        np.maximum(np.abs(chosen - speedy), np.abs(wanted - direct))
        > NEGLIGIBLE * change + 8.0 * rounding,
    )
    return (
        moved,
        (moved - position) / dt_s,
        goal,
        np.stack([stage.any(axis=-1) for stage in stages], axis=-1),
    )


def _limit_angular(
    target: Array, state: MotionState, previous: Array | None, limits: MotionLimits, dt_s: float
) -> tuple[Array, Array, NDArray[np.bool_]]:
    """The next quaternion, its angular velocity, and which of STAGES[2:] intervened."""
    start = state.setpoint.quaternion_xyzw
    velocity = state.angular_velocity_rad_s
    assert start is not None
    rounding = 32.0 * EPSILON / dt_s
    step_speed = _below(min(limits.max_angular_step_rad, MAX_TURN_RAD) / dt_s, rounding)
    top_speed = _below(limits.max_angular_velocity_rad_s, rounding)
    change = _below(limits.max_angular_acceleration_rad_s2 * dt_s, rounding)

    to_target = rotation.between(start, target)
    direct = to_target / dt_s
    behind = np.zeros_like(to_target)
    if previous is not None:
        farthest = _above(np.minimum(step_speed, top_speed), rounding) * dt_s
        jumped = rotation.length(rotation.between(previous, target)) > farthest
        behind = np.where(jumped, to_target, rotation.between(start, previous))
    wanted = _preferred(
        direct, behind, rotation.length(behind), _below(change, 6.0 * rounding), dt_s
    )

    stepped = _shortened(wanted, step_speed)
    speedy = _shortened(stepped, top_speed)
    chosen = velocity + _shortened(speedy - velocity, change)
    chosen = np.where(rotation.length(chosen - speedy) <= rounding, speedy, chosen)

    passes = (chosen == direct).all(axis=-1, keepdims=True)
    moved = np.where(passes, target, rotation.turn(start, chosen * dt_s))
    stages = (
        rotation.length(wanted) > _above(step_speed, rounding),
        rotation.length(stepped) > _above(top_speed, rounding),
        np.maximum(rotation.length(chosen - speedy), rotation.length(wanted - direct))
        > NEGLIGIBLE * change + 8.0 * rounding,
    )
    return moved, rotation.between(start, moved) / dt_s, np.concatenate(stages, axis=-1)


def _within(values: Array | float, low: Array | float, high: Array | float) -> Array:
    """np.clip, several times as fast for so few numbers."""
    return np.minimum(np.maximum(values, low), high)


def _below(limit: Array | float, rounding: Array | float) -> Array:
    """A limit with room for what computing and storing positions rounds off."""
    return np.maximum(
        np.asarray(limit) * (1.0 - 8.0 * EPSILON) - rounding, 0.5 * np.asarray(limit) * NEGLIGIBLE
    )


def _above(limit: Array, rounding: Array | float) -> Array:
    """What must be exceeded for an intervention to count: less is rounding, of the target or of the
    limit.
    """
    return limit * (1.0 + NEGLIGIBLE) + 8.0 * rounding


def _shortened(vector: Array, longest: Array) -> Array:
    """The vector [..., 3] itself, or one in its direction of length `longest`."""
    return vector * np.minimum(1.0, longest / np.maximum(rotation.length(vector), rotation.TINY))
