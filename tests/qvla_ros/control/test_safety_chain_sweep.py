"""No setpoint ever breaches a limit, whatever is asked for.

What is within the limits is left alone.

The sweep takes 10^5 random chunks; `QVLA_SWEEP_CHUNKS=1000000 pytest -s -k sweep` takes more and
prints what it saw.
"""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qvla_ros.control.limits import MotionLimits, motion_limits
from qvla_ros.control.motion import MotionState, at_rest
from qvla_ros.control.safety_chain import STAGES, limit_motion
from qvla_ros.control.setpoint import Setpoint

SWEEP_CHUNKS = int(os.environ.get("QVLA_SWEEP_CHUNKS", "100000"))
CHUNK_LENGTH = 8
BATCH = 2000  # chunks that share limits and are moved side by side
ANGLE_ROUNDING_RAD = 1e-14  # of an angle computed anew from two quaternions
HOSTILE = np.array([np.nan, np.inf, -np.inf, 1e300, -1e300, 1.7e308, 5e-324])


def random_limits(random: np.random.Generator) -> tuple[MotionLimits, float]:
    """Limits over many orders of magnitude, one in five absent, and a control period."""

    def some(low: float, high: float, count: int = 3) -> np.ndarray:
        return np.where(random.random(count) < 0.2, np.inf, 10 ** random.uniform(low, high, count))

    center = random.normal(size=3)
    half = some(-2, 1)
    limits = motion_limits(
        3,
        center - half,
        center + half,
        some(-4, 0),
        some(-2, 2),
        some(-2, 3),
        *(float(some(low, high, 1)[0]) for low, high in ((-3, 0), (-2, 2), (-1, 3))),
    )
    return limits, 10 ** random.uniform(-3, -0.5)


def random_unit(random: np.random.Generator, count: int) -> np.ndarray:
    quaternion = random.normal(size=(count, 4))
    return quaternion / np.linalg.norm(quaternion, axis=-1, keepdims=True)


def random_start(random: np.random.Generator, limits: MotionLimits, count: int) -> MotionState:
    """At rest inside the box, but for one in ten, which may lie outside."""
    low = np.maximum(limits.linear_low, -10.0)
    high = np.minimum(limits.linear_high, 10.0)
    share = random.random((count, 3)) + np.where(
        random.random((count, 1)) < 0.1, random.normal(size=(count, 3)), 0.0
    )
    linear = low + share * (high - low)
    return at_rest(Setpoint(linear, random_unit(random, count), random.random(count)))


def random_target(
    random: np.random.Generator, state: MotionState, limits: MotionLimits
) -> Setpoint:
    """Near, far, beyond the walls, where it was before, or no number at all.

    The mixture differs from row to row.
    """
    here = state.setpoint
    count = len(state.setpoint.linear)
    assert here.quaternion_xyzw is not None
    size = np.minimum(limits.linear_high - limits.linear_low, 20.0)
    reach = 10 ** random.uniform(-6, 1, (count, 1))
    linear = here.linear + reach * size * random.normal(size=(count, 3))
    linear = np.where(
        random.random((count, 3)) < 0.1,
        random.choice([limits.linear_low, limits.linear_high]),
        linear,
    )
    if state.target is not None:
        stays = random.random((count, 1)) < 0.5
        linear = np.where(stays, state.target.linear, linear)
    quaternion = here.quaternion_xyzw + np.minimum(reach, 1.0) * random.normal(size=(count, 4))
    quaternion /= np.linalg.norm(quaternion, axis=-1, keepdims=True)
    hostile = random.random((count, 1)) < 0.05
    linear = np.where(
        hostile & (random.random((count, 3)) < 0.5), random.choice(HOSTILE, (count, 3)), linear
    )
    quaternion = np.where(
        hostile & (random.random((count, 4)) < 0.2), random.choice(HOSTILE, (count, 4)), quaternion
    )
    gripper = np.where(hostile[:, 0], random.choice(HOSTILE, count), random.normal(0.5, 1.0, count))
    return Setpoint(linear, quaternion, gripper)


def norm(vector: np.ndarray) -> np.ndarray:
    return np.sqrt((vector * vector) @ np.ones(vector.shape[-1]))


def rotation_vector(start: Setpoint, end: Setpoint) -> np.ndarray:
    """The rotation between two orientations, the short way, about fixed axes, rad [..., 3]."""
    assert start.quaternion_xyzw is not None
    assert end.quaternion_xyzw is not None
    x, y, z, w = start.quaternion_xyzw.T
    a, b, c, d = end.quaternion_xyzw.T
    vector = np.array(
        [
            w * a - d * x - b * z + c * y,
            w * b - d * y - c * x + a * z,
            w * c - d * z - a * y + b * x,
        ]
    ).T
    cosine = w * d + x * a + y * b + z * c
    sine = norm(vector)
    angle = 2.0 * np.arctan2(sine, np.abs(cosine))
    return vector * (np.sign(cosine) * angle / np.maximum(sine, 1e-300))[..., None]


def breaches(
    before: Setpoint, last: Setpoint, now: Setpoint, limits: MotionLimits, dt_s: float
) -> dict[str, int]:
    """How many numbers of three setpoints in a row breach each limit.

    Shares no code with the chain.
    """
    moved = now.linear - last.linear
    moved_before = last.linear - before.linear
    outside = np.maximum(limits.linear_low - now.linear, now.linear - limits.linear_high)
    was_outside = np.maximum(limits.linear_low - last.linear, last.linear - limits.linear_high)
    turn_before = rotation_vector(before, last)
    turn = rotation_vector(last, now)
    turned = norm(turn) - ANGLE_ROUNDING_RAD
    turn_change = norm(turn - turn_before) - ANGLE_ROUNDING_RAD
    gripper = np.asarray(now.gripper)
    wrong = {
        "finite": ~(
            np.isfinite(now.linear).all(axis=-1) & np.isfinite(turned) & np.isfinite(gripper)
        ),
        "box": outside > np.maximum(was_outside, 0.0),
        "step": np.abs(moved) > limits.max_linear_step,
        "velocity": np.abs(moved) / dt_s > limits.max_linear_velocity,
        "acceleration": np.abs(moved / dt_s - moved_before / dt_s)
        > limits.max_linear_acceleration * dt_s,
        "angular step": turned > limits.max_angular_step_rad,
        "angular velocity": turned > limits.max_angular_velocity_rad_s * dt_s,
        "angular acceleration": turn_change > limits.max_angular_acceleration_rad_s2 * dt_s * dt_s,
        "gripper": (gripper < 0.0) | (gripper > 1.0),
    }
    return {name: int(np.count_nonzero(rows)) for name, rows in wrong.items()}


def sweep(seed: int) -> tuple[dict[str, int], np.ndarray]:
    """BATCH random chunks from rest: breaches by limit, and interventions by stage."""
    random = np.random.default_rng(seed)
    limits, dt_s = random_limits(random)
    state = random_start(random, limits, BATCH)
    before = state.setpoint
    total = {}
    acted = np.zeros(len(STAGES), np.int64)
    for _ in range(CHUNK_LENGTH):
        last = state.setpoint
        state, stages = limit_motion(random_target(random, state, limits), state, limits, dt_s)
        found = breaches(before, last, state.setpoint, limits, dt_s)
        total = {name: total.get(name, 0) + count for name, count in found.items()}
        acted += stages.sum(axis=0)
        before = last
    return total, acted


def test_sweep_of_random_chunks_breaches_no_limit() -> None:
    acted = np.zeros(len(STAGES), np.int64)
    for seed in range(SWEEP_CHUNKS // BATCH):
        found, stages = sweep(seed)
        assert not any(found.values()), (seed, found)
        acted += stages
    commands = SWEEP_CHUNKS // BATCH * BATCH * CHUNK_LENGTH
    print(
        f"{commands} commands, interventions "
        f"{dict(zip(STAGES, acted.tolist(), strict=True))}, no breach"
    )
    assert (acted > 0.01 * commands).all()  # the targets did press on every stage


ANYTHING = st.floats(allow_nan=True, allow_infinity=True, width=64)
NEAR = st.floats(-2.0, 2.0)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 7),
    st.lists(st.lists(NEAR | ANYTHING, min_size=7, max_size=7), max_size=12),
    st.data(),
)
def test_joints_never_breach_a_limit(
    axes: int, targets: list[list[float]], data: st.DataObject
) -> None:
    some = st.floats(1e-3, 10.0)
    step, velocity, acceleration = (data.draw(some) for _ in range(3))
    limits = motion_limits(axes, -1.0, 1.0, step, velocity, acceleration)
    state = at_rest(Setpoint(np.full(axes, data.draw(NEAR))))
    for target in targets:
        last = state.setpoint.linear
        last_velocity = state.linear_velocity
        state, _ = limit_motion(Setpoint(np.array(target[:axes])), state, limits, 0.05)
        now = state.setpoint.linear
        assert (np.abs(now) <= np.maximum(1.0, np.abs(last))).all()
        assert (np.abs(now - last) <= min(step, velocity * 0.05)).all()
        assert (np.abs(state.linear_velocity - last_velocity) <= acceleration * 0.05).all()


@pytest.mark.parametrize(
    ("step", "velocity", "acceleration", "dt_s"),
    [
        (np.inf, 2.0, 4.0, 0.05),
        (0.01, np.inf, 3.0, 0.01),
        (0.05, 0.9, 0.7, 0.05),
        (np.inf, np.inf, 10.0, 0.02),
    ],
)
def test_a_constant_target_is_reached_without_overshoot_and_as_soon_as_the_limits_allow(
    step: float, velocity: float, acceleration: float, dt_s: float
) -> None:
    count = 200
    limits = motion_limits(3, -1.0, 1.0, step, velocity, acceleration, step, velocity, acceleration)
    random = np.random.default_rng(0)
    state = at_rest(Setpoint(random.uniform(-1, 1, (count, 3)), random_unit(random, count)))
    target = Setpoint(random.uniform(-1, 1, (count, 3)), random_unit(random, count))
    target.linear[0] = 1.0  # the corner of the box
    distance = np.abs(target.linear - state.setpoint.linear)
    speed = min(velocity, step / dt_s)
    swinging_s = 2.0 * np.sqrt(distance / acceleration)
    fastest_s = np.maximum(
        swinging_s, distance / speed + min(speed / acceleration, swinging_s.max())
    )
    left_rad = norm(rotation_vector(state.setpoint, target))
    turning_s = np.pi / speed + 2.0 * np.sqrt(np.pi / acceleration)
    for tick in range(int(max(fastest_s.max(), turning_s) / dt_s) + 4):
        last = distance
        last_rad = left_rad
        state, _ = limit_motion(target, state, limits, dt_s)
        distance = np.abs(target.linear - state.setpoint.linear)
        left_rad = norm(rotation_vector(state.setpoint, target))
        assert (distance <= last).all()
        beyond = (target.linear - state.setpoint.linear) * state.linear_velocity < 0.0
        assert (distance[beyond] < 1e-12).all()
        assert (left_rad <= last_rad + 1e-9).all()
        assert (distance[tick * dt_s > fastest_s + 3 * dt_s] == 0.0).all()
    assert (left_rad < 1e-9).all()


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("as_deltas", [False, True])
def test_what_the_chain_lets_out_it_lets_through_unchanged(as_deltas: bool, seed: int) -> None:
    """A trajectory within all limits, to the wall and at full speed, passes unchanged."""
    random = np.random.default_rng(seed)
    limits, dt_s = random_limits(random)
    start = random_start(random, limits, 100)
    start = at_rest(
        replace(
            start.setpoint,
            linear=np.clip(start.setpoint.linear, limits.linear_low, limits.linear_high),
        )
    )
    state = start
    path = []
    for _ in range(6):
        target = random_target(random, state, limits)
        for _ in range(5):
            state, _ = limit_motion(target, state, limits, dt_s)
            path.append(state.setpoint)
    state = start
    for setpoint in path:
        if as_deltas:
            state = replace(state, target=None)
        state, stages = limit_motion(setpoint, state, limits, dt_s)
        assert not stages.any()
        np.testing.assert_allclose(state.setpoint.linear, setpoint.linear, rtol=1e-12, atol=1e-12)
        assert norm(rotation_vector(state.setpoint, setpoint)).max() < 1e-9
        assert (np.asarray(state.setpoint.gripper) == setpoint.gripper).all()
