"""Chooses where to pinch the rim of a bowl, by one rule at every state.

So the choice at a scene does not depend on the way there.

The preferred place is the rim's right side (world -y): the fingers of a wrist that is not turned
move along world y. Where something stands in the way of the hand, or the arm would be all but
straight (OSC_POSE drifts there, and may not come back), it is the side next to the robot, with the
wrist turned by a right angle.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qvla_reference.obstacles import Obstacles

# Turn of the wrist, rad; side of the rim; how far inside it the hand is: a drawer has little room
# for the outer finger.
_PREFERENCES = ((0.0, -1.0, 0.004), (np.pi / 2, 1.0, 0.014))
_REACH_M = 0.95  # of the hand from the robot's base, seen from above
_REACH_PER_HEIGHT = 0.2  # the reach lost for each metre of height
# a millimetre out of reach counts as much as one point of the hand inside something
_POINTS_PER_M = 1000
_BELOW_RIM_M = 0.015
# The open hand and the way of its outer finger, metres from the point between the pads: along the
# fingers, across.
_OUTER_FINGER = np.stack(
    np.meshgrid(np.linspace(0.008, 0.064, 9), [-0.011, 0.0, 0.011]), axis=-1
).reshape(-1, 2)
_PALM = np.stack(np.meshgrid(np.linspace(-0.075, 0.075, 7), [-0.025, 0.0, 0.025]), axis=-1).reshape(
    -1, 2
)
# how high they are above that point
_FINGERTIP_M = -0.010
_PALM_M = 0.030


@dataclass(frozen=True)
class Grasp:
    """The place of the point between the pads, [3] metres, and the turn of the wrist."""

    position_m: np.ndarray
    yaw_rad: float
    on_rim: bool = False


def is_bowl(points_m: np.ndarray) -> bool:
    """Whether an object is hollow and open upwards as it stands.

    vertices: [N, 3], of its geometry.
    """
    low = points_m.min(axis=0)
    high = points_m.max(axis=0)
    middle = (low + high) / 2
    central = np.linalg.norm(points_m[:, :2] - middle[:2], axis=-1) < 0.3 * (high - low)[:2].min()
    return bool(central.any() and points_m[central, 2].max() < middle[2])


def rim_grasp(
    points_m: np.ndarray,
    obstacles: Obstacles,
    base_m: tuple[float, float],
    hand_m: np.ndarray | None = None,
    hand_yaw_rad: float = 0.0,
) -> Grasp:
    """Chooses the first grasp of the rim of a bowl [N, 3] that is clear and (nearly) in reach.

    base_m: where the robot stands. hand_m: where the hand is, [3]. A grasp that it is about to
    close is kept, though the bowl may have moved a little.
    """

    def badness(choice: tuple[float, float, float]) -> float:
        grasp = _grasp(points_m, *choice)
        reach = _REACH_M - _REACH_PER_HEIGHT * grasp.position_m[2]
        too_far = max(0.0, float(np.linalg.norm(grasp.position_m[:2] - base_m)) - reach)
        offset = np.full(3, np.inf) if hand_m is None else hand_m - grasp.position_m
        under_way = (
            np.linalg.norm(offset[:2]) < 0.02
            and offset[2] < 0.03
            and abs(hand_yaw_rad - grasp.yaw_rad) < 0.25
        )
        return (
            -1.0 if under_way else _blocked(grasp, choice[1], obstacles) + _POINTS_PER_M * too_far
        )

    return _grasp(points_m, *min(_PREFERENCES, key=badness))


def _grasp(points_m: np.ndarray, yaw_rad: float, side: float, inside_m: float) -> Grasp:
    low = points_m.min(axis=0)
    high = points_m.max(axis=0)
    radius = (high - low)[:2].mean() / 2 - inside_m
    position = np.append(
        (low + high)[:2] / 2 + side * radius * _fingers(yaw_rad), high[2] - _BELOW_RIM_M
    )
    return Grasp(position, yaw_rad, on_rim=True)


def _blocked(grasp: Grasp, side: float, obstacles: Obstacles) -> int:
    """Counts the points of the open hand that would be inside something."""
    along = side * _fingers(grasp.yaw_rad)
    frame = np.stack([along, [-along[1], along[0]]])
    parts = ((_OUTER_FINGER, _FINGERTIP_M), (_PALM, _PALM_M))
    heights = [
        obstacles.heights_m(grasp.position_m[:2] + part @ frame) - above for part, above in parts
    ]
    return int((np.concatenate(heights) > grasp.position_m[2]).sum())


def _fingers(yaw_rad: float) -> np.ndarray:
    return np.array([-np.sin(yaw_rad), np.cos(yaw_rad)])
