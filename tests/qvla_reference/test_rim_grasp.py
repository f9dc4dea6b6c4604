"""The expert pinches a bowl by its rim and puts it on a plate, without a simulator.

One episode of libero_spatial runs with one.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qvla_reference.demonstrations import Disturbances, record_episode
from qvla_reference.expert import CLOSE, OPEN, PickPlaceExpert, hand_rotation
from qvla_reference.obstacles import NO_OBSTACLES, Obstacles, swept_footprint
from qvla_reference.privileged import PickPlaceState
from qvla_reference.rim_grasp import is_bowl, rim_grasp
from qvla_ros.simulation.libero import LiberoTask

EXPERT = PickPlaceExpert()
BASE_M = (-0.66, 0.0)
RADIUS_M = 0.053
HEIGHT_M = 0.05
TABLE_M = 0.9
ANGLES = np.linspace(0.0, 2 * np.pi, 24, endpoint=False)
RINGS = [(0.3, 0.0), (0.8, 0.3), (1.0, 1.0)]  # of the radius, of the height
BOWL = np.concatenate(
    [
        np.stack(
            [
                r * RADIUS_M * np.cos(ANGLES),
                r * RADIUS_M * np.sin(ANGLES),
                0 * ANGLES + h * HEIGHT_M,
            ],
            -1,
        )
        for r, h in RINGS
    ]
)
RIGHT = np.array([0.0, -1.0])
NEAR = np.array([-1.0, 0.0])


def bowl_at(x, y, bottom=TABLE_M) -> np.ndarray:
    return BOWL + [x, y, bottom]


def block(center, half_extent, yaw_rad=0.0) -> Obstacles:
    turn = hand_rotation(yaw_rad) @ hand_rotation(0.0).T
    return Obstacles.of_boxes(np.array([center], float), turn[None], np.array([half_extent], float))


def state(
    eef_m, bowl_m=(-0.05, 0.0, TABLE_M), opening_m=0.08, touching=False, obstacles=NO_OBSTACLES
) -> PickPlaceState:
    return PickPlaceState(
        eef_position_m=np.array(eef_m, dtype=float),
        eef_rotation=hand_rotation(0.0),
        finger_opening_m=opening_m,
        object_points_m=BOWL + np.array(bowl_m),
        object_touches_fingers=touching,
        goal_center_m=np.array([0.06, 0.2]),
        goal_half_extent_m=np.array([0.07, 0.07]),
        goal_top_m=TABLE_M + 0.02,
        floor_m=TABLE_M,
        goal_is_plate=True,
        base_m=BASE_M,
        obstacles=obstacles,
    )


def pinched(bowl_m, **others) -> PickPlaceState:
    hand = np.array(bowl_m) + [0.0, -RADIUS_M, HEIGHT_M - 0.015]
    return state(hand, bowl_m, opening_m=0.006, touching=True, **others)


def side(grasp, x, y) -> np.ndarray:
    offset = grasp.position_m[:2] - [x, y]
    return offset / np.linalg.norm(offset)


def test_a_box_and_a_bowl_upside_down_are_no_bowls():
    box = np.stack(np.meshgrid(*[[-0.05, 0.0, 0.05]] * 3), axis=-1).reshape(-1, 3)
    assert is_bowl(BOWL)
    assert not is_bowl(box)
    assert not is_bowl(BOWL * [1.0, 1.0, -1.0])


@given(st.floats(-0.3, 0.0), st.floats(-0.2, 0.2))
def test_a_free_bowl_is_pinched_at_its_right_side_without_a_turn_of_the_wrist(x, y):
    grasp = rim_grasp(bowl_at(x, y), NO_OBSTACLES, BASE_M)
    np.testing.assert_allclose(side(grasp, x, y), RIGHT, atol=1e-6)
    assert grasp.yaw_rad == 0.0
    assert RADIUS_M - 0.006 < np.linalg.norm(grasp.position_m[:2] - [x, y]) < RADIUS_M
    assert TABLE_M < grasp.position_m[2] < TABLE_M + HEIGHT_M


def test_a_wall_beside_the_rim_or_a_far_bowl_turns_the_grasp_towards_the_robot():
    wall = block([0.0, -0.11, TABLE_M + 0.1], [0.2, 0.01, 0.1])
    np.testing.assert_allclose(
        side(rim_grasp(bowl_at(0.0, 0.0), wall, BASE_M), 0.0, 0.0), NEAR, atol=1e-6
    )
    np.testing.assert_allclose(
        side(rim_grasp(bowl_at(0.1, -0.3), NO_OBSTACLES, BASE_M), 0.1, -0.3), NEAR, atol=1e-6
    )
    low = block([0.0, -0.11, TABLE_M + 0.005], [0.2, 0.01, 0.005])
    np.testing.assert_allclose(
        side(rim_grasp(bowl_at(0.0, 0.0), low, BASE_M), 0.0, 0.0), RIGHT, atol=1e-6
    )


def test_a_grasp_under_way_is_kept_although_another_one_becomes_preferred():
    bowl = bowl_at(0.0, 0.0)
    hand = np.array([-RADIUS_M + 0.004, 0.0, TABLE_M + 0.04])
    kept = rim_grasp(bowl, NO_OBSTACLES, BASE_M, hand, np.pi / 2)
    np.testing.assert_allclose(side(kept, 0.0, 0.0), NEAR, atol=1e-6)
    above = rim_grasp(bowl, NO_OBSTACLES, BASE_M, hand + [0.0, 0.0, 0.1], np.pi / 2)
    np.testing.assert_allclose(side(above, 0.0, 0.0), RIGHT, atol=1e-6)


def test_obstacle_heights_follow_a_turned_box():
    turned = block([0.0, 0.0, 1.0], [0.10, 0.01, 0.05], yaw_rad=np.pi / 4)
    heights = turned.heights_m(np.array([[0.05, 0.05], [0.05, -0.05], [0.0, 0.03]]))
    np.testing.assert_allclose(heights, [1.05, -np.inf, -np.inf])
    assert turned.heights_m(np.array([[0.0, 0.03]]), margin_m=0.02)[0] == pytest.approx(1.05)


def test_a_swept_footprint_reaches_from_the_start_to_the_end_of_the_way():
    points = swept_footprint(np.array([0.0, 0.0]), np.array([0.1, 0.1]), np.array([0.3, 0.0]))
    np.testing.assert_allclose([points.min(axis=0), points.max(axis=0)], [[0.0, 0.0], [0.4, 0.1]])
    assert np.diff(np.unique(points[:, 0].round(9))).max() < 0.016


def test_the_hand_closes_on_the_rim_and_not_above_the_middle_of_the_bowl():
    down = EXPERT.act(state([-0.05, -0.049, TABLE_M + 0.036]))
    assert down[6] == CLOSE
    middle = EXPERT.act(state([-0.05, 0.0, TABLE_M + 0.036]))
    assert middle[6] == OPEN
    assert middle[2] > 0.5


def test_a_bowl_in_a_drawer_is_lifted_over_its_front_before_it_is_carried():
    front = block([0.0, 0.075, 1.1], [0.2, 0.005, 0.02])
    inside = EXPERT.act(pinched((-0.05, 0.0, 1.06), obstacles=front))
    assert inside[2] == 1.0
    assert np.abs(inside[:2]).max() < 1e-9
    above = EXPERT.act(pinched((-0.05, 0.0, 1.15), obstacles=front))
    assert above[1] == 1.0
    assert above[6] == CLOSE


def test_a_bowl_is_let_go_low_over_the_middle_of_the_plate_only():
    assert EXPERT.act(pinched((0.06, 0.2, TABLE_M + 0.015)))[6] == OPEN
    high = EXPERT.act(pinched((0.06, 0.2, TABLE_M + 0.06)))
    assert high[6] == CLOSE
    assert high[2] < 0.0
    assert EXPERT.act(pinched((0.06, 0.17, TABLE_M + 0.015)))[6] == CLOSE


def test_a_hand_that_has_let_go_leaves_straight_upwards():
    released = dataclasses.replace(
        pinched((0.06, 0.2, TABLE_M + 0.008)), object_touches_fingers=False, finger_opening_m=0.02
    )
    action = EXPERT.act(released)
    assert action[2] == 1.0
    assert np.abs(action[[0, 1, 3, 4, 5]]).max() < 1e-9
    assert action[6] == OPEN


@pytest.mark.simulation
def test_the_bowl_on_the_stove_comes_to_lie_on_the_plate_twice_from_the_same_seed():
    calm = Disturbances(start_offset_m=0.02, largest_noise=0.1, push_every_steps=1e6)
    with LiberoTask("libero_spatial", 7, camera_size=32) as task:
        first, second = (
            record_episode(task, EXPERT, (0, 7, 0, 0), calm, image_period=None) for _ in range(2)
        )
    assert first is not None
    assert first.facts["success_step"] < 140
    np.testing.assert_array_equal(first.series["label_actions"], second.series["label_actions"])
    start = first.series["object_position_m"][0]
    # on the burner, not where a stale pose puts it
    np.testing.assert_allclose(start[:2], [-0.26, -0.13], atol=0.05)
