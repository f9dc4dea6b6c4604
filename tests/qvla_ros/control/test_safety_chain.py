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

from qvla_ros.control.braking import braking_speed
from qvla_ros.control.limits import MotionLimits, motion_limits
from qvla_ros.control.motion import MotionState, at_rest
from qvla_ros.control.safety_chain import STAGES, limit_motion
from qvla_ros.control.setpoint import Setpoint
from qvla_ros.errors import QvlaError

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


def test_within_all_limits_the_very_same_numbers_come_out() -> None:
    limits = motion_limits(3, -1.0, 1.0, 0.1, 1.0, 10.0, 0.1, 1.0, 10.0)
    state = at_rest(Setpoint(np.array([0.1, 0.2, 0.3]), np.array([0.0, 0.0, 0.0, 1.0]), 0.4))
    target = Setpoint(np.array([0.1003, 0.1999, 0.3]), np.array([0.0, 0.6e-4, 0.0, 1.0]), 1.0)
    out, stages = limit_motion(target, state, limits, 0.01)
    assert not stages.any()
    assert out.setpoint.linear.tolist() == target.linear.tolist()
    assert out.setpoint.gripper == 1.0


def test_each_stage_is_counted_by_its_name() -> None:
    start = at_rest(Setpoint(np.zeros(3), np.array([0.0, 0.0, 0.0, 1.0]), 0.5))

    def acted(target: Setpoint, **limits: float) -> set[str]:
        _, stages = limit_motion(target, start, motion_limits(3, **limits), 0.1)
        return {name for name, changed in zip(STAGES, stages, strict=True) if changed}

    far = replace(start.setpoint, linear=np.array([0.0, 1.0, 0.0]))
    turned = replace(start.setpoint, quaternion_xyzw=np.array([0.0, 1.0, 0.0, 0.0]))
    assert acted(far) == set()
    assert acted(replace(far, linear=np.full(3, np.nan))) == {"finite"}
    assert acted(replace(far, quaternion_xyzw=np.zeros(4))) == {"finite"}
    assert acted(replace(far, gripper=float("inf"))) == {"finite"}
    assert acted(far, linear_low=-0.5, linear_high=0.5) == {"box"}
    assert acted(replace(start.setpoint, gripper=1.5)) == {"box"}
    assert acted(far, max_linear_step=0.5) == {"step"}
    assert acted(far, max_linear_velocity=5.0) == {"velocity"}
    assert acted(far, max_linear_acceleration=50.0) == {"acceleration"}
    assert acted(turned) == {"step"}  # half a turn at once has no shorter way round
    assert acted(turned, max_angular_velocity_rad_s=5.0) == {"step", "velocity"}
    assert acted(turned, max_angular_acceleration_rad_s2=50.0) == {"step", "acceleration"}


def stages_of(target: Setpoint, start: Setpoint, dt_s: float = 0.1, **limits: float) -> set[str]:
    _, acted = limit_motion(
        target, at_rest(start), motion_limits(start.linear.size, **limits), dt_s
    )
    return {name for name, changed in zip(STAGES, acted, strict=True) if changed}


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_no_robot_is_sent_farther_than_a_thousand_kilometres(sign: float) -> None:
    start = Setpoint(np.zeros(2))
    assert stages_of(Setpoint(np.array([0.0, sign * 1e6])), start) == set()
    beyond = np.array([0.0, sign * np.nextafter(1e6, np.inf)])
    assert stages_of(Setpoint(beyond), start) == {"finite"}


@pytest.mark.parametrize(
    ("length", "usable"), [(0.9985, False), (0.9995, True), (1.0005, True), (1.0015, False)]
)
def test_a_quaternion_whose_length_is_a_thousandth_off_one_is_no_rotation(
    length: float, usable: bool
) -> None:
    unit = np.array([0.5, -0.5, 0.5, 0.5])
    target = Setpoint(np.zeros(3), length * unit)
    start = at_rest(Setpoint(np.zeros(3), unit))
    out, acted = limit_motion(target, start, motion_limits(3), 0.1)
    assert acted[STAGES.index("finite")] != usable
    np.testing.assert_allclose(out.setpoint.quaternion_xyzw, unit, atol=1e-12)


def test_one_command_turns_at_most_three_radians_without_any_limit() -> None:
    start = Setpoint(np.zeros(3), np.array([0.0, 0.0, 0.0, 1.0]))

    def turned_rad(angle_rad: float) -> float:
        target = replace(start, quaternion_xyzw=about_z(angle_rad))
        out, _ = limit_motion(target, at_rest(start), motion_limits(3), 0.1)
        return float(norm(rotation_vector(start, out.setpoint)))

    def about_z(angle_rad: float) -> np.ndarray:
        return np.array([0.0, 0.0, np.sin(angle_rad / 2), np.cos(angle_rad / 2)])

    assert turned_rad(2.99) == pytest.approx(2.99, abs=1e-12)
    assert turned_rad(3.1) == pytest.approx(3.0, abs=1e-9)
    assert stages_of(replace(start, quaternion_xyzw=about_z(2.99)), start) == set()
    assert stages_of(replace(start, quaternion_xyzw=about_z(3.01)), start) == {"step"}


LINEAR_LIMITS = {
    "step": ("max_linear_step", 0.1),
    "velocity": ("max_linear_velocity", 0.2),
    "acceleration": ("max_linear_acceleration", 0.4),
}
ANGULAR_LIMITS = {
    "step": ("max_angular_step_rad", 0.1),
    "velocity": ("max_angular_velocity_rad_s", 0.2),
    "acceleration": ("max_angular_acceleration_rad_s2", 0.4),
}


@pytest.mark.parametrize("stage", list(LINEAR_LIMITS))
@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize(("excess", "counts"), [(-1e-7, False), (3e-10, False), (3e-9, True)])
def test_an_excess_counts_as_an_intervention_from_a_billionth_of_the_limit_on(
    stage: str, sign: float, excess: float, counts: bool
) -> None:
    """In the 0.5 s after rest all these limits allow 0.1 m, or 0.1 rad."""
    start = Setpoint(np.zeros(1), np.array([0.0, 0.0, 0.0, 1.0]))
    length = sign * 0.1 * (1.0 + excess)
    name, limit = LINEAR_LIMITS[stage]
    moved = replace(start, linear=np.array([length]))
    assert stages_of(moved, start, 0.5, **{name: limit}) == ({stage} if counts else set())
    name, limit = ANGULAR_LIMITS[stage]
    turned = replace(
        start, quaternion_xyzw=np.array([0.0, np.sin(length / 2), 0.0, np.cos(length / 2)])
    )
    assert stages_of(turned, start, 0.5, **{name: limit}) == ({stage} if counts else set())


def test_a_gripper_fully_open_or_closed_is_no_intervention() -> None:
    start = Setpoint(np.zeros(1), gripper=0.5)
    for gripper, expected in ((0.0, set()), (1.0, set()), (-1e-9, {"box"}), (1 + 1e-9, {"box"})):
        assert stages_of(replace(start, gripper=gripper), start) == expected


def test_a_refused_target_keeps_the_gripper_of_its_own_row() -> None:
    """Row by row: the second row's target has no finite number, the others' are taken."""
    state = at_rest(Setpoint(np.zeros((3, 1)), gripper=np.array([0.1, 0.2, 0.3])))
    target = Setpoint(np.array([[0.5], [np.nan], [0.7]]), gripper=np.array([0.6, 0.8, 0.9]))
    out, acted = limit_motion(target, state, motion_limits(1), 0.1)
    assert out.setpoint.linear[:, 0].tolist() == [0.5, 0.0, 0.7]
    assert np.asarray(out.setpoint.gripper).tolist() == [0.6, 0.2, 0.9]
    assert acted[:, STAGES.index("finite")].tolist() == [False, True, False]


def test_a_target_that_moves_is_followed_at_its_own_speed_and_one_that_stops_is_reached() -> None:
    """A setpoint that moves within the limits passes unchanged.

    That holds also where it could not be stopped in time. A jump beyond the limits is approached
    from where the setpoint is.
    """
    limits = motion_limits(1, max_linear_velocity=1.0, max_linear_acceleration=1.0)
    state = at_rest(Setpoint(np.zeros(1)))
    position = 0.0
    velocity = 0.0
    for _ in range(9):
        velocity += 0.099
        position += velocity * 0.1
        state, acted = limit_motion(Setpoint(np.array([position])), state, limits, 0.1)
        assert not acted.any()
        assert state.setpoint.linear[0] == position
    for _ in range(40):
        state, _ = limit_motion(Setpoint(np.array([position + 0.3])), state, limits, 0.1)
    assert state.setpoint.linear[0] == position + 0.3
    assert state.linear_velocity[0] == 0.0


def test_a_target_that_is_no_number_brings_the_motion_to_rest_within_the_acceleration() -> None:
    limits = motion_limits(3, max_linear_acceleration=1.0)
    state = MotionState(
        Setpoint(np.zeros(3), gripper=0.3), np.array([0.25, 0.0, -0.1]), np.zeros(3)
    )
    velocities = []
    for _ in range(4):
        state, stages = limit_motion(
            Setpoint(np.array([0.0, np.nan, 0.0]), gripper=1.0), state, limits, 0.1
        )
        velocities.append(state.linear_velocity[0])
        assert stages[STAGES.index("finite")]
    np.testing.assert_allclose(velocities, [0.15, 0.05, 0.0, 0.0], atol=1e-12)
    assert state.setpoint.gripper == 0.3


def test_a_start_outside_the_box_only_moves_inwards() -> None:
    limits = motion_limits(3, -1.0, 1.0, max_linear_velocity=1.0)
    state = at_rest(Setpoint(np.array([2.0, -3.0, 0.0])))
    out, _ = limit_motion(Setpoint(np.array([5.0, 5.0, 0.5])), state, limits, 0.1)
    np.testing.assert_allclose(out.setpoint.linear, [1.9, -2.9, 0.1])


def test_too_fast_to_stop_in_front_of_a_wall_it_stops_at_the_wall() -> None:
    limits = motion_limits(3, -1.0, 1.0, max_linear_acceleration=0.1)
    state = MotionState(Setpoint(np.array([0.9, 0.0, 0.0])), np.array([5.0, 0.0, 0.0]), np.zeros(3))
    for _ in range(5):
        state, _ = limit_motion(Setpoint(np.full(3, 0.5)), state, limits, 0.1)
        assert state.setpoint.linear[0] <= 1.0


@given(st.floats(1e-6, 10.0), st.floats(1e-4, 10.0), st.sampled_from([0.001, 0.01, 0.1]))
def test_braking_from_the_braking_speed_ends_at_the_wall(
    distance: float, change: float, dt_s: float
) -> None:
    speed = float(braking_speed(np.array(distance), change, dt_s))
    travelled = 0.0
    while speed > 0.0 and travelled <= distance * 1.01:
        travelled += speed * dt_s
        speed -= change
    assert travelled == pytest.approx(distance, rel=1e-9)


@pytest.mark.parametrize(
    ("limits", "key"),
    [
        ({"max_linear_step": [0.1, 0.2]}, "max_linear_step"),
        ({"max_linear_velocity": 0.0}, "max_linear_velocity"),
        ({"max_angular_step_rad": float("nan")}, "max_angular_step_rad"),
        ({"linear_low": 1.0, "linear_high": -1.0}, "linear_low"),
        ({"linear_low": 1.0, "linear_high": 1.0}, "linear_low"),
        ({"linear_low": float("nan")}, "linear_low"),
        ({"max_linear_acceleration": [0.1, 0.0, 0.1]}, "max_linear_acceleration"),
    ],
)
def test_limits_that_limit_nothing_sensible_are_refused(limits: dict, key: str) -> None:
    with pytest.raises(QvlaError, match=key):
        motion_limits(3, **limits)


def test_a_limit_is_one_number_for_all_axes_or_one_each_or_none() -> None:
    limits = motion_limits(3, linear_low=-0.001, max_linear_step=[0.1, 0.2, 0.3])
    assert limits.linear_low.tolist() == [-0.001] * 3
    assert limits.linear_high.tolist() == [np.inf] * 3
    assert limits.max_linear_step.tolist() == [0.1, 0.2, 0.3]
    assert limits.max_linear_velocity.tolist() == [np.inf] * 3
    assert motion_limits(1, max_linear_step=0.5).max_linear_step.tolist() == [0.5]
    with pytest.raises(QvlaError, match="^parameter linear_low: .*3 numbers"):
        motion_limits(3, linear_low=[0.0, 0.0])
