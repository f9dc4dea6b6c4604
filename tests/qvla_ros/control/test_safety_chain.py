"""What the safety chain does to one target, and to targets that move."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from qvla_ros.control.limits import motion_limits
from qvla_ros.control.motion import MotionState, at_rest
from qvla_ros.control.safety_chain import STAGES, limit_motion
from qvla_ros.control.setpoint import Setpoint


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


def about_z(angle_rad: float) -> np.ndarray:
    return np.array([0.0, 0.0, np.sin(angle_rad / 2), np.cos(angle_rad / 2)])


def angle_about_z_rad(setpoint: Setpoint) -> float:
    assert setpoint.quaternion_xyzw is not None
    _, _, z, w = setpoint.quaternion_xyzw
    return float(2.0 * np.arctan2(z, w))


def test_one_command_turns_at_most_three_radians_without_any_limit() -> None:
    start = Setpoint(np.zeros(3), np.array([0.0, 0.0, 0.0, 1.0]))

    def turned_rad(angle_rad: float) -> float:
        target = replace(start, quaternion_xyzw=about_z(angle_rad))
        out, _ = limit_motion(target, at_rest(start), motion_limits(3), 0.1)
        return angle_about_z_rad(out.setpoint)

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


def test_an_orientation_that_jumps_ahead_while_it_turns_is_reached_without_overshoot() -> None:
    """It is braked for from the first command after the jump on."""
    limits = motion_limits(1, max_angular_velocity_rad_s=1.0, max_angular_acceleration_rad_s2=1.0)
    state = at_rest(Setpoint(np.zeros(1), about_z(0.0)))
    angle_rad = 0.0
    speed_rad_s = 0.0
    for _ in range(9):
        speed_rad_s += 0.099
        angle_rad += speed_rad_s * 0.1
        state, acted = limit_motion(Setpoint(np.zeros(1), about_z(angle_rad)), state, limits, 0.1)
        assert not acted.any()
    goal_rad = angle_rad + 0.45  # the way to rest from this speed is 0.4 rad
    target = Setpoint(np.zeros(1), about_z(goal_rad))
    for _ in range(40):
        state, _ = limit_motion(target, state, limits, 0.1)
        assert angle_about_z_rad(state.setpoint) <= goal_rad + 1e-9
    assert angle_about_z_rad(state.setpoint) == pytest.approx(goal_rad, abs=1e-9)


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
