"""A scripted teacher that picks an object and places it in its container, from any state.

It has no memory: its action is a function of the present state. Its decisions (descend, close,
lift, release) depend on quantities that a policy can see: where the hand is relative to the object,
and how far the fingers are open. So it recovers from a push or a dropped object by itself, and it
can be asked for a label at any state a learner visits (DAgger, Ross et al. 2011). It uses ordinary
OSC_POSE actions, so its episodes are valid demonstrations.

    hover above the grasp -> descend in a funnel (only as low as the hand is centred) -> close ->
    lift -> carry above the rim -> release over the middle of the container -> stay there, hand open

A bowl is pinched by its rim; a plate is a container on which the object is put down before it is
let go.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qvla_reference.obstacles import swept_footprint
from qvla_reference.privileged import WRIST_TURNS_RAD, PickPlaceState, grasp_widths
from qvla_reference.rim_grasp import Grasp, is_bowl, rim_grasp

# one unit of an OSC_POSE action
POSITION_UNIT_M = 0.05
ROTATION_UNIT_RAD = 0.5
OPEN = -1.0
CLOSE = 1.0
TURN_LIMIT = 0.5  # units: a quarter radian a step at most
# fingers (its x axis) along world y
_HAND_DOWN = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])


@dataclass(frozen=True)
class PickPlaceExpert:
    """The teacher and its few constants, in metres unless a comment names another unit."""

    gain: float = 1.2  # of the error, in OSC_POSE units: the controller is critically damped at 1
    grasp_depth_m: float = 0.035  # below the object's top
    lowest_grasp_m: float = 0.010  # above the floor, of the point between the pads
    hover_m: float = 0.06  # finger pads above the object's top while the hand is not centred
    centred_m: float = 0.006  # horizontal error at which the hand may be all the way down
    off_centre_m: float = 0.030  # horizontal error from which it stays at the hover height
    release_m: float = 0.025  # horizontal error at which it lets go
    rim_clearance_m: float = 0.035  # object above the rim while it is carried
    widest_grasp_m: float = 0.068
    # A bowl, its rim and a plate:
    rim_hover_m: float = 0.045
    rim_gain: float = (
        2.0  # near the rim or the plate: a stretched arm drifts, and a weaker pull would stop short
    )
    rim_descent_m: float = (
        0.015  # at most so far ahead: a fast descent carries a stretched arm outwards
    )
    look_ahead_m: float = (
        0.06  # on the way to the plate: what is in the way so soon must be cleared first
    )
    plate_release_m: float = 0.012  # horizontal error at which it lets go
    plate_drop_m: float = 0.004  # and how far the object's bottom may be above the plate's rim then
    on_plate_m: float = 0.027  # horizontal error up to which it lies well; LIBERO allows 0.03

    def act(self, state: PickPlaceState) -> np.ndarray:
        """Returns the noise-free action at `state`, float64 [7] in [-1, 1]."""
        if self._is_placed(state):
            return self._stay_above_goal(state)
        if self._is_held(state):
            return self._carry(state)
        return self._reach(state)

    def _is_placed(self, state: PickPlaceState) -> bool:
        """Whether the object is free, inside the container's outline and not on its rim.

        It is free once the hand has let go of it, or never held it; its middle counts.
        """
        if self._is_held(state):
            return False
        off_center = np.abs(state.object_center_m[:2] - state.goal_center_m)
        bottom = state.object_points_m[:, 2].min()
        if state.goal_is_plate:
            return bool(
                np.linalg.norm(off_center) < self.on_plate_m and bottom < state.goal_top_m + 0.02
            )
        inside = np.all(off_center < state.goal_half_extent_m - 0.02)
        return bool(inside and bottom < state.goal_top_m + self.rim_clearance_m + 0.03)

    def _is_held(self, state: PickPlaceState) -> bool:
        return state.object_touches_fingers and state.finger_opening_m < (
            0.03 if state.goal_is_plate else 0.078
        )

    def _stay_above_goal(self, state: PickPlaceState) -> np.ndarray:
        if state.goal_is_plate:  # straight up, or the fingers take the object along
            target = np.append(state.eef_position_m[:2], state.goal_top_m + 0.12)
            return self._move(state, target, OPEN, state.hand_yaw_rad)
        height = max(state.goal_top_m + 0.10, state.eef_position_m[2])
        return self._move(state, np.append(state.goal_center_m, height), OPEN)

    def _put_down(self, state: PickPlaceState) -> np.ndarray:
        """Carries the object over obstacles to the plate, sinks over its middle, and lets go."""
        low = state.object_points_m.min(axis=0)
        high = state.object_points_m.max(axis=0)
        bottom = low[2]
        away = state.goal_center_m - state.object_center_m[:2]
        distance = float(np.linalg.norm(away))
        soon = away * min(1.0, self.look_ahead_m / max(distance, 1e-9))
        near, all_the_way = (
            float(
                state.obstacles.heights_m(swept_footprint(low[:2], high[:2], way), 0.01).max(
                    initial=state.floor_m
                )
            )
            for way in (soon, away)
        )
        down = np.clip((distance - self.plate_release_m / 2) / self.look_ahead_m, 0.0, 1.0)
        over_plate = state.goal_top_m - 0.012 + down * self.rim_clearance_m
        carried = max(over_plate, all_the_way + 0.02 if distance > self.off_centre_m else -np.inf)
        freedom = (
            float(np.clip((bottom - near - 0.003) / 0.015, 0.0, 1.0))
            if distance > self.off_centre_m
            else 1.0
        )
        target = state.eef_position_m + np.append(freedom * away, carried - bottom)
        release = distance < self.plate_release_m and bottom < state.goal_top_m + self.plate_drop_m
        return self._move(
            state, target, OPEN if release else CLOSE, state.hand_yaw_rad, self.rim_gain
        )

    def _carry(self, state: PickPlaceState) -> np.ndarray:
        if state.goal_is_plate:
            return self._put_down(state)
        bottom = state.object_points_m[:, 2].min()
        # where in the hand the object sits
        hanging = state.object_center_m[:2] - state.eef_position_m[:2]
        over_goal = state.goal_center_m - hanging
        away = over_goal - state.eef_position_m[:2]
        distance = float(np.linalg.norm(away))
        height = state.eef_position_m[2] + state.goal_top_m + self.rim_clearance_m - bottom
        near_rim = distance < 0.20
        clear = bottom - (state.goal_top_m + 0.005 if near_rim else state.floor_m + 0.01)
        freedom = float(np.clip(clear / (0.02 if near_rim else 0.06), 0.0, 1.0))
        target = np.append(state.eef_position_m[:2] + freedom * away, height)
        release = distance < self.release_m and bottom > state.goal_top_m
        return self._move(state, target, OPEN if release else CLOSE)

    def _reach(self, state: PickPlaceState) -> np.ndarray:
        grasp = self._grasp(state)
        top = float(state.object_points_m[:, 2].max())
        yaw = grasp.yaw_rad
        grasp_z = float(grasp.position_m[2])
        gain = (
            self.rim_gain
            if grasp.on_rim and abs(state.eef_position_m - grasp.position_m).max() < 0.1
            else self.gain
        )
        away = grasp.position_m[:2] - state.eef_position_m[:2]
        distance = float(np.linalg.norm(away))
        height = float(state.eef_position_m[2])
        turned = abs(rotation_vector(hand_rotation(yaw) @ state.eef_rotation.T)).max()

        in_place = distance < 2 * self.centred_m and height < grasp_z + 0.010 and turned < 0.15
        if in_place:
            return self._move(state, grasp.position_m, CLOSE, yaw, gain)
        hover_z = top + (self.rim_hover_m if grasp.on_rim else self.hover_m)
        off_centre = (distance - self.centred_m) / (self.off_centre_m - self.centred_m)
        off = np.clip(
            max(off_centre, (turned - 0.05) / 0.15, (0.072 - state.finger_opening_m) / 0.01),
            0.0,
            1.0,
        )
        funnel_z = grasp_z + off * (hover_z - grasp_z)
        if grasp.on_rim and distance < self.off_centre_m:
            funnel_z = max(funnel_z, height - self.rim_descent_m)
        # Low beside the object (after a push, or with an empty hand): rise before moving sideways
        # into it.
        beside = (
            np.clip((funnel_z - 0.01 - height) / 0.03, 0.0, 1.0)
            if distance > self.centred_m
            else 0.0
        )
        return self._move(
            state,
            np.append(state.eef_position_m[:2] + (1.0 - beside) * away, funnel_z),
            OPEN,
            yaw,
            gain,
        )

    def _grasp(self, state: PickPlaceState) -> Grasp:
        """Chooses the grasp: across the object, or at a bowl's rim.

        The wrist has the smallest turn at which the object fits between the fingers.
        """
        widths = grasp_widths(state.object_points_m)
        fits = np.flatnonzero(widths < self.widest_grasp_m)
        if not len(fits) and is_bowl(state.object_points_m):
            hand = state.eef_position_m, state.hand_yaw_rad
            return rim_grasp(state.object_points_m, state.obstacles, state.base_m, *hand)
        height = max(
            state.object_points_m[:, 2].max() - self.grasp_depth_m,
            state.floor_m + self.lowest_grasp_m,
        )
        yaw = float(WRIST_TURNS_RAD[fits[0] if len(fits) else widths.argmin()])
        return Grasp(np.append(state.object_center_m[:2], height), yaw)

    def _move(
        self,
        state: PickPlaceState,
        target_m: np.ndarray,
        gripper: float,
        yaw_rad: float = 0.0,
        gain: float | None = None,
    ) -> np.ndarray:
        return step_towards(
            state, target_m, gripper, hand_rotation(yaw_rad), self.gain if gain is None else gain
        )


def step_towards(
    state: PickPlaceState,
    target_m: np.ndarray,
    gripper: float,
    target_rotation: np.ndarray,
    gain: float = 1.2,
) -> np.ndarray:
    """Returns a proportional action, float64 [7], towards a pose of the hand.

    Seen from above, the path is straight.
    """
    delta = gain * (target_m - state.eef_position_m) / POSITION_UNIT_M
    delta[:2] /= max(1.0, float(np.abs(delta[:2]).max()))
    # on its own: rising comes first, whatever the way to go
    delta[2] = np.clip(delta[2], -1.0, 1.0)
    turn = rotation_vector(target_rotation @ state.eef_rotation.T) / ROTATION_UNIT_RAD
    return np.concatenate([delta, np.clip(turn, -TURN_LIMIT, TURN_LIMIT), [gripper]])


def hand_rotation(yaw_rad: float) -> np.ndarray:
    """Returns the rotation [3, 3] of a hand that points down.

    Its fingers are turned by `yaw_rad` from the world's y axis.
    """
    cosine = np.cos(yaw_rad)
    sine = np.sin(yaw_rad)
    return np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]]) @ _HAND_DOWN


def rotation_vector(rotation: np.ndarray) -> np.ndarray:
    """Returns axis times angle [3], radians, of a rotation matrix.

    It is well defined below half a turn.
    """
    skew = np.array(
        [
            rotation[2, 1] - rotation[1, 2],
            rotation[0, 2] - rotation[2, 0],
            rotation[1, 0] - rotation[0, 1],
        ]
    )
    sine = np.linalg.norm(skew) / 2
    cosine = (np.trace(rotation) - 1) / 2
    angle = np.arctan2(sine, cosine)
    return skew / 2 if sine < 1e-9 else skew / (2 * sine) * angle
