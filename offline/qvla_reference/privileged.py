"""Reads where the object and its container really are, which the expert may know, a policy not.

`PrivilegedScene` reads it from a pick-and-place task of LIBERO with one goal, `In(object,
container)` or `On(object, plate)`. Everything is in metres in the simulator's world frame;
collision geometry decides, not appearance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qvla_reference.obstacles import NO_OBSTACLES, Obstacles
from qvla_reference.rim_grasp import is_bowl
from qvla_ros.errors import QvlaError
from qvla_ros.simulation.libero import LiberoTask

WIDEST_OBJECT_M = 0.074  # of the 0.08 m between the open fingers
# smallest first
WRIST_TURNS_RAD = np.deg2rad([0, 10, -10, 20, -20, 30, -30, 45, -45, 60, -60, 75, -75, 90])
# mujoco.mjtGeom
_PLANE = 0
_MESH = 7


@dataclass(frozen=True)
class PickPlaceState:
    """One instant of a pick-and-place task. Positions in metres, world frame."""

    eef_position_m: np.ndarray  # [3], between the finger pads
    # [3, 3], the grip site's axes as columns: the fingers move along x, z points ahead
    eef_rotation: np.ndarray
    finger_opening_m: float  # distance between the finger pads, 0 to 0.08
    object_points_m: np.ndarray  # [N, 3], vertices of the object's collision geometry
    object_touches_fingers: bool  # both of them
    goal_center_m: np.ndarray  # [2], middle of the container seen from above
    goal_half_extent_m: np.ndarray  # [2]
    goal_top_m: float  # height of the container's rim
    floor_m: float  # height of what the container stands on
    goal_is_plate: bool = False  # the object is to be put down on it, not dropped into it
    base_m: tuple[float, float] = (-0.66, 0.0)  # where the robot stands
    obstacles: Obstacles = (
        NO_OBSTACLES  # everything else; left out where the container's rim is higher anyway
    )

    @property
    def object_center_m(self) -> np.ndarray:
        """The middle [3] of the object's bounding box."""
        return (self.object_points_m.min(axis=0) + self.object_points_m.max(axis=0)) / 2

    @property
    def hand_yaw_rad(self) -> float:
        """How far the wrist is turned: the angle from the world's y axis to the fingers' motion."""
        along = self.eef_rotation[1, 0]
        across = -self.eef_rotation[0, 0]
        return float(np.arctan2(across, along))


class PrivilegedScene:
    """Reads a PickPlaceState from a running task.

    It keeps nothing between calls, so one serves all episodes of a task.
    """

    def __init__(self, task: LiberoTask, goal: Sequence[str] | None = None) -> None:
        """goal: (predicate, object, container or plate); the task's own unless given."""
        goals = task.environment.parsed_problem["goal_state"] if goal is None else [goal]
        if len(goals) != 1 or goals[0][0] not in ("in", "on"):
            expected = "a task with one goal, In(object, container) or On(object, plate)"
            raise QvlaError(
                "task_id",
                task.instruction,
                expected,
                "choose a task of libero_object or libero_spatial",
            )
        self._environment = task.environment
        model = self._environment.sim.model
        predicate, object_name, goal_name = goals[0]
        container = goal_name.removesuffix("_contain_region")
        if {object_name, container} - set(self._environment.objects_dict):
            expected = "an object that is moved to another object"
            raise QvlaError(
                "task_id",
                task.instruction,
                expected,
                "choose a task of libero_object or libero_spatial",
            )
        gripper = self._environment.robots[0].gripper
        self._object_geoms = list(self._environment.objects_dict[object_name].contact_geoms)
        object_body, goal_body = (
            self._environment.obj_body_id[name] for name in (object_name, container)
        )
        self._object = _collision_vertices(model, {model.body_rootid[object_body]})
        self._goal = _collision_vertices(model, {model.body_rootid[goal_body]})
        self._site = self._environment.robots[0].eef_site_id
        self._object_name = object_name
        self._goal_is_plate = predicate == "on"
        parts = (
            ("left_finger", "right_finger")
            if self._goal_is_plate
            else ("left_fingerpad", "right_fingerpad")
        )
        # a rim may be held above the pads
        self._fingers = [gripper.important_geoms[part] for part in parts]
        robot_root = model.body_rootid[model.site_bodyid[self._site]]
        others = set(model.body_rootid) - {
            robot_root,
            model.body_rootid[object_body],
            model.body_rootid[goal_body],
        }
        boxes = _collision_vertices(model, others) if self._goal_is_plate else []
        self._obstacle_geoms = np.array([geom for geom, _ in boxes], dtype=int)
        self._obstacle_low = np.array([points.min(axis=0) for _, points in boxes]).reshape(-1, 3)
        self._obstacle_high = np.array([points.max(axis=0) for _, points in boxes]).reshape(-1, 3)

    def require_graspable(self) -> None:
        """Raises QvlaError if the object, as it stands after a reset, fits between no fingers.

        Not to be called in mid-episode: an object that has fallen over may well be too wide, and
        still be pushed.
        """
        points = self._world_points(self._object)
        width = grasp_widths(points).min()
        if width > WIDEST_OBJECT_M and not is_bowl(points):
            expected = f"an object at most {WIDEST_OBJECT_M} m wide somewhere, or a bowl with a rim"
            found = f"{self._object_name}, {width:.3f} m wide"
            raise QvlaError(
                "task_id", found, expected, "choose a task of libero_object or libero_spatial"
            )

    def state(self) -> PickPlaceState:
        """Returns the state at this instant (not delayed, unlike observations)."""
        data = self._environment.sim.data
        robot = self._environment.robots[0]
        goal = self._world_points(self._goal)
        low = goal.min(axis=0)
        high = goal.max(axis=0)
        fingers = data.qpos[robot._ref_gripper_joint_pos_indexes]
        return PickPlaceState(
            eef_position_m=data.site_xpos[self._site].copy(),
            eef_rotation=data.site_xmat[self._site].reshape(3, 3).copy(),
            finger_opening_m=float(fingers[0] - fingers[1]),
            object_points_m=self._world_points(self._object),
            object_touches_fingers=bool(
                self._environment._check_grasp(self._fingers, self._object_geoms)
            ),
            goal_center_m=(low[:2] + high[:2]) / 2,
            goal_half_extent_m=(high[:2] - low[:2]) / 2,
            goal_top_m=float(high[2]),
            floor_m=float(low[2]),
            goal_is_plate=self._goal_is_plate,
            base_m=tuple(robot.base_pos[:2]),
            obstacles=self._obstacles(),
        )

    def _obstacles(self) -> Obstacles:
        data = self._environment.sim.data
        rotation = data.geom_xmat[self._obstacle_geoms].reshape(-1, 3, 3)
        middle = (self._obstacle_low + self._obstacle_high) / 2
        center = data.geom_xpos[self._obstacle_geoms] + np.einsum("nij,nj->ni", rotation, middle)
        return Obstacles.of_boxes(center, rotation, (self._obstacle_high - self._obstacle_low) / 2)

    def _world_points(self, vertices: list[tuple[int, np.ndarray]]) -> np.ndarray:
        data = self._environment.sim.data
        return np.concatenate(
            [p @ data.geom_xmat[g].reshape(3, 3).T + data.geom_xpos[g] for g, p in vertices]
        )


def grasp_widths(points_m: np.ndarray) -> np.ndarray:
    """Measures how wide `points_m` [N, 3] are along the fingers at each of WRIST_TURNS_RAD, m."""
    fingers = np.stack([-np.sin(WRIST_TURNS_RAD), np.cos(WRIST_TURNS_RAD)], axis=-1)
    return np.ptp(fingers @ points_m[:, :2].T, axis=-1)


def _collision_vertices(model: Any, roots: set[int]) -> list[tuple[int, np.ndarray]]:
    """Lists all collision geometry of the root bodies `roots` and their parts.

    Of each: (geom, vertices [N, 3] in the geom's frame).
    """
    vertices = []
    for geom in range(model.ngeom):
        collides = model.geom_contype[geom] or model.geom_conaffinity[geom]
        if model.body_rootid[model.geom_bodyid[geom]] not in roots or not collides:
            continue
        if model.geom_type[geom] == _PLANE:  # without an end; nothing is below it anyway
            continue
        if model.geom_type[geom] == _MESH:
            mesh = model.geom_dataid[geom]
            first = model.mesh_vertadr[mesh]
            count = model.mesh_vertnum[mesh]
            points = np.array(model.mesh_vert[first : first + count])
        else:  # the bounding box of a primitive is close enough to grasp by
            points = (
                np.stack(np.meshgrid(*[[-1.0, 1.0]] * 3), axis=-1).reshape(-1, 3)
                * model.geom_size[geom]
            )
        vertices.append((geom, points))
    return vertices
