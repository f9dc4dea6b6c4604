"""The scripted teacher as a function of the state, without a simulator."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qvla_reference.expert import (
    CLOSE,
    OPEN,
    PickPlaceExpert,
    hand_rotation,
    rotation_vector,
    step_towards,
)
from qvla_reference.privileged import PickPlaceState

EXPERT = PickPlaceExpert()
BOX_HALF_M = np.array([0.025, 0.025, 0.06])
CORNERS = np.stack(np.meshgrid(*[[-1.0, 1.0]] * 3), axis=-1).reshape(-1, 3)
OPEN_M = 0.08
CLOSED_ON_BOX_M = 0.05


def state(
    eef_m, box_m=(0.1, -0.2, 0.06), opening_m=OPEN_M, touching=False, yaw_rad=0.0
) -> PickPlaceState:
    return PickPlaceState(
        eef_position_m=np.array(eef_m, dtype=float),
        eef_rotation=hand_rotation(yaw_rad),
        finger_opening_m=opening_m,
        object_points_m=CORNERS * BOX_HALF_M + np.array(box_m),
        object_touches_fingers=touching,
        goal_center_m=np.array([0.0, 0.25]),
        goal_half_extent_m=np.array([0.08, 0.08]),
        goal_top_m=0.14,
        floor_m=0.0,
    )


def test_a_hand_that_is_far_away_goes_sideways_and_stays_above_the_object():
    action = EXPERT.act(state([-0.1, 0.0, 0.18]))
    assert action[0] > 0 > action[1]
    assert abs(action[2]) < 0.1
    assert action[6] == OPEN


def test_a_centred_hand_descends_and_closes_only_when_it_is_down():
    above = EXPERT.act(state([0.1, -0.2, 0.18]))
    assert above[2] < -0.5
    assert above[6] == OPEN
    down = EXPERT.act(state([0.1, -0.2, 0.087]))
    assert down[6] == CLOSE


def test_a_hand_pushed_away_beside_the_object_rises_before_it_comes_back():
    action = EXPERT.act(state([0.1, -0.13, 0.08]))
    assert action[2] > 0.5
    assert abs(action[1]) < 0.1
    assert action[6] == OPEN


def test_a_closed_empty_hand_does_not_descend_on_the_object():
    assert EXPERT.act(state([0.1, -0.2, 0.18], opening_m=0.0))[2] >= -0.1


def test_an_object_between_the_fingers_is_lifted_before_it_is_carried():
    low = EXPERT.act(state([0.1, -0.2, 0.085], opening_m=CLOSED_ON_BOX_M, touching=True))
    assert low[2] == 1.0
    assert abs(low[:2]).max() < 0.05
    assert low[6] == CLOSE
    high = EXPERT.act(state([0.1, -0.2, 0.26], (0.1, -0.2, 0.235), CLOSED_ON_BOX_M, touching=True))
    assert high[1] == 1.0


def test_an_object_beside_the_rim_is_not_carried_into_it():
    action = EXPERT.act(state([0.0, 0.1, 0.15], (0.0, 0.1, 0.12), CLOSED_ON_BOX_M, touching=True))
    assert action[2] > 0.5
    assert abs(action[:2]).max() < 0.05


def test_it_lets_go_over_the_middle_of_the_container_and_nowhere_else():
    over = EXPERT.act(state([0.0, 0.25, 0.26], (0.0, 0.25, 0.235), CLOSED_ON_BOX_M, touching=True))
    assert over[6] == OPEN
    beside = EXPERT.act(
        state([0.0, 0.20, 0.26], (0.0, 0.20, 0.235), CLOSED_ON_BOX_M, touching=True)
    )
    assert beside[6] == CLOSE


def test_after_placing_the_open_hand_stays_above_the_container():
    action = EXPERT.act(state([0.0, 0.25, 0.28], (0.01, 0.24, 0.07), opening_m=0.079))
    assert np.abs(action[:6]).max() < 1e-9
    assert action[6] == OPEN


def test_a_dropped_object_is_fetched_again():
    carried = state([0.0, 0.1, 0.26], (0.0, 0.1, 0.235), CLOSED_ON_BOX_M, touching=True)
    dropped = dataclasses.replace(
        carried,
        object_points_m=carried.object_points_m - [0.0, 0.0, 0.175],
        object_touches_fingers=False,
    )
    assert EXPERT.act(dropped)[6] == OPEN


def test_the_wrist_turns_only_for_an_object_too_wide_as_it_lies():
    narrow = EXPERT.act(state([0.1, -0.2, 0.2]))
    assert np.abs(narrow[3:6]).max() == 0.0
    flat = state([0.1, -0.2, 0.2])
    flat = dataclasses.replace(
        flat, object_points_m=CORNERS * [0.02, 0.06, 0.01] + [0.1, -0.2, 0.01]
    )
    assert abs(EXPERT.act(flat)[5]) == pytest.approx(0.5)


@given(st.lists(st.floats(-3.0, 3.0), min_size=3, max_size=3), st.floats(0.0, 0.08), st.booleans())
def test_every_state_has_an_action_within_the_limits(position, opening, touching):
    action = EXPERT.act(state(position, opening_m=opening, touching=touching))
    assert action.shape == (7,)
    assert np.isfinite(action).all()
    assert np.abs(action).max() <= 1.0


@given(st.floats(-3.0, 3.0), st.floats(-3.0, 3.0))
def test_rotation_vector_undoes_a_turn_about_the_vertical(first, second):
    turn = hand_rotation(first) @ hand_rotation(second).T
    expected = (first - second + np.pi) % (2 * np.pi) - np.pi
    if abs(expected) < 3.1:
        np.testing.assert_allclose(rotation_vector(turn), [0.0, 0.0, expected], atol=1e-9)


def test_a_far_target_is_approached_in_a_straight_line_seen_from_above():
    action = step_towards(
        state([0.0, 0.0, 0.3]), np.array([0.4, -0.2, 0.3]), OPEN, hand_rotation(0.0)
    )
    np.testing.assert_allclose(action[:2], [1.0, -0.5])
