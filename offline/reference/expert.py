"""A scripted teacher that picks an object and places it in its container, from any state.

It has no memory: what it does is a function of the present state, and its decisions (descend, close, lift, release)
hang on quantities a policy can see: where the hand is relative to the object, and how far the fingers are open. So it
recovers from a push or a dropped object by itself, and it can be asked for a label at any state a learner visits
(DAgger, Ross et al. 2011). It uses ordinary OSC_POSE actions; its episodes are valid demonstrations.

    hover above the object -> descend in a funnel (only as low as the hand is centred) -> close -> lift
    -> carry above the rim -> release over the middle of the container -> stay there, hand open
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from qvla_offline.reference.privileged import WRIST_TURNS_RAD, PickPlaceState, grasp_widths

POSITION_UNIT_M, ROTATION_UNIT_RAD = 0.05, 0.5  # one unit of an OSC_POSE action
OPEN, CLOSE = -1.0, 1.0
TURN_LIMIT = 0.5  # units: a quarter radian a step at most
_HAND_DOWN = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])  # fingers (its x axis) along world y


@dataclass(frozen=True)
class PickPlaceExpert:
    """The teacher's few constants, in metres unless told otherwise."""

    gain: float = 1.2  # of the error, in OSC_POSE units: the controller is critically damped at 1
    grasp_depth_m: float = 0.035  # below the object's top
    lowest_grasp_m: float = 0.010  # above the floor, of the point between the pads
    hover_m: float = 0.06  # finger pads above the object's top while the hand is not centred
    centred_m: float = 0.006  # horizontal error at which the hand may be all the way down
    off_centre_m: float = 0.030  # horizontal error from which it stays at the hover height
    release_m: float = 0.025  # horizontal error at which it lets go
    rim_clearance_m: float = 0.035  # object above the rim while it is carried
    widest_grasp_m: float = 0.068

    def act(self, state: PickPlaceState) -> np.ndarray:
        """Float64 [7] in [-1, 1]: the noise-free action at `state`."""
        if self._is_placed(state):
            return self._stay_above_goal(state)
        if self._is_held(state):
            return self._carry(state)
        return self._reach(state)

    def _is_placed(self, state: PickPlaceState) -> bool:
        """Let go of (or never held), with its middle inside the container's outline and not standing on the rim."""
        center = state.object_center_m
        inside = np.all(np.abs(center[:2] - state.goal_center_m) < state.goal_half_extent_m - 0.02)
        low = state.object_points_m[:, 2].min() < state.goal_top_m + self.rim_clearance_m + 0.03
        return bool(inside and low and not self._is_held(state))

    def _is_held(self, state: PickPlaceState) -> bool:
        return state.object_touches_fingers and state.finger_opening_m < 0.078

    def _stay_above_goal(self, state: PickPlaceState) -> np.ndarray:
        height = max(state.goal_top_m + 0.10, state.eef_position_m[2])
        return self._move(state, np.append(state.goal_center_m, height), OPEN)

    def _carry(self, state: PickPlaceState) -> np.ndarray:
        bottom = state.object_points_m[:, 2].min()
        hanging = state.object_center_m[:2] - state.eef_position_m[:2]  # where in the hand the object sits
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
        center, top = state.object_center_m, float(state.object_points_m[:, 2].max())
        grasp_z = max(top - self.grasp_depth_m, state.floor_m + self.lowest_grasp_m)
        away = center[:2] - state.eef_position_m[:2]
        distance, height = float(np.linalg.norm(away)), float(state.eef_position_m[2])
        yaw = self._grasp_yaw(state)
        turned = abs(rotation_vector(hand_rotation(yaw) @ state.eef_rotation.T)).max()

        in_place = distance < 2 * self.centred_m and height < grasp_z + 0.010 and turned < 0.15
        if in_place:
            return self._move(state, np.append(center[:2], grasp_z), CLOSE, yaw)
        hover_z = top + self.hover_m
        off_centre = (distance - self.centred_m) / (self.off_centre_m - self.centred_m)
        off = np.clip(max(off_centre, (turned - 0.05) / 0.15, (0.072 - state.finger_opening_m) / 0.01), 0.0, 1.0)
        funnel_z = grasp_z + off * (hover_z - grasp_z)
        # Low beside the object (after a push, or with an empty hand): rise before moving sideways into it.
        beside = np.clip((funnel_z - 0.01 - height) / 0.03, 0.0, 1.0) if distance > self.centred_m else 0.0
        return self._move(state, np.append(state.eef_position_m[:2] + (1.0 - beside) * away, funnel_z), OPEN, yaw)

    def _grasp_yaw(self, state: PickPlaceState) -> float:
        """The smallest turn of the wrist, radians, at which the object fits between the fingers."""
        widths = grasp_widths(state.object_points_m)
        fits = np.flatnonzero(widths < self.widest_grasp_m)
        return float(WRIST_TURNS_RAD[fits[0] if len(fits) else widths.argmin()])

    def _move(self, state: PickPlaceState, target_m: np.ndarray, gripper: float, yaw_rad: float = 0.0) -> np.ndarray:
        return step_towards(state, target_m, gripper, hand_rotation(yaw_rad), gain=self.gain)


def step_towards(
    state: PickPlaceState, target_m: np.ndarray, gripper: float, target_rotation: np.ndarray, gain: float = 1.2
) -> np.ndarray:
    """A proportional action, float64 [7], towards a pose of the hand; seen from above, the path is straight."""
    delta = gain * (target_m - state.eef_position_m) / POSITION_UNIT_M
    delta[:2] /= max(1.0, float(np.abs(delta[:2]).max()))
    delta[2] = np.clip(delta[2], -1.0, 1.0)  # on its own: rising comes first, whatever the way to go
    turn = rotation_vector(target_rotation @ state.eef_rotation.T) / ROTATION_UNIT_RAD
    return np.concatenate([delta, np.clip(turn, -TURN_LIMIT, TURN_LIMIT), [gripper]])


def hand_rotation(yaw_rad: float) -> np.ndarray:
    """[3, 3]: the hand points down, its fingers `yaw_rad` from the world's y axis."""
    cosine, sine = np.cos(yaw_rad), np.sin(yaw_rad)
    return np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]]) @ _HAND_DOWN


def rotation_vector(rotation: np.ndarray) -> np.ndarray:
    """Axis times angle, radians, [3], of a rotation matrix; well defined below half a turn."""
    skew = np.array([rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0], rotation[1, 0] - rotation[0, 1]])
    sine, cosine = np.linalg.norm(skew) / 2, (np.trace(rotation) - 1) / 2
    angle = np.arctan2(sine, cosine)
    return skew / 2 if sine < 1e-9 else skew / (2 * sine) * angle
