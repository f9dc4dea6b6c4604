"""The safety chain: finite -> workspace box -> per step -> velocity -> acceleration.

Pure, exact, over any batch axes.

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

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from qvla_ros.control import rotation
from qvla_ros.control.braking import approach_speed, braking_speed, preferred
from qvla_ros.control.limits import MotionLimits
from qvla_ros.control.motion import MotionState, is_usable
from qvla_ros.control.setpoint import Setpoint

Array = NDArray[np.float64]
# Which stages of the chain changed a target: bool [..., len(STAGES)].
Interventions = NDArray[np.bool_]

STAGES = ("finite", "box", "step", "velocity", "acceleration")
NEGLIGIBLE = 1e-9  # of a limit: a smaller change is rounding, and no intervention
MAX_TURN_RAD = 3.0  # per command, limit or not: near pi the short way round is ambiguous
EPSILON = float(np.finfo(np.float64).eps)


def limit_motion(
    target: Setpoint,
    state: MotionState,
    limits: MotionLimits,
    dt_s: float,
    reaction_s: float = 0.0,
) -> tuple[MotionState, Interventions]:
    """Computes the next command towards `target`, and which STAGES had to intervene.

    It is `dt_s` after the command in `state`.

    A target with a number that is not finite or is absurd, or with a quaternion that is no
    rotation, is refused whole: the motion comes to rest as fast as the acceleration allows, the
    gripper stays. A gripper outside 0 to 1 is clipped (stage `box`). Where every stage lets the
    target pass, it comes out as it went in.

    reaction_s: how late a robot carries out what it is sent, where `state` is predicted from
    measurements instead of being the last command: walls are approached by `approach_speed`.
    """
    finite = is_usable(target)
    target = _where(finite, target, state.setpoint)
    previous = None if state.target is None else _where(finite, state.target, state.setpoint)
    stages = np.zeros((*finite.shape, len(STAGES)), np.bool_)
    stages[..., 0] = ~finite

    expected = None if previous is None else previous.linear
    linear, velocity, goal, changed = _limit_linear(
        target.linear, state, expected, limits, dt_s, reaction_s
    )
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
    return MotionState(limited, velocity, angular_velocity, wanted, dt_s), stages


def _where(condition: NDArray[np.bool_], chosen: Setpoint, other: Setpoint) -> Setpoint:
    """Takes each row of the batch from `chosen` or `other`.

    A gripper that is None in `other` becomes None where any row is taken from there.
    """
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


def _limit_linear(
    target: Array,
    state: MotionState,
    previous: Array | None,
    limits: MotionLimits,
    dt_s: float,
    reaction_s: float,
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
    wanted = preferred(direct, behind, np.abs(behind), planned_change, dt_s)

    stepped = _within(wanted, -step_speed, step_speed)
    speedy = _within(stepped, -top_speed, top_speed)
    low = np.minimum(limits.linear_low, position)
    high = np.maximum(limits.linear_high, position)
    room_below = braking_speed(position - low, planned_change, dt_s)
    room_above = braking_speed(high - position, planned_change, dt_s)
    if reaction_s > dt_s:
        to_low = position - limits.linear_low
        to_high = limits.linear_high - position
        down = approach_speed(to_low, planned_change, dt_s, reaction_s)
        up = approach_speed(to_high, planned_change, dt_s, reaction_s)
        # Beyond a wall, the way back to it is no faster than the way to it from within.
        room_below = np.minimum(room_below, np.where(to_high < 0.0, -up, np.maximum(down, 0.0)))
        room_above = np.minimum(room_above, np.where(to_low < 0.0, -down, np.maximum(up, 0.0)))
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
    wanted = preferred(
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
