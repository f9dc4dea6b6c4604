"""A stand-in for LIBERO without physics: a point that moves as commanded.

It tests the wiring, not policies.

The interface is that of qvla_ros.simulation.libero.LiberoTask; a step takes microseconds. Suite and
instruction are called fake, and the images show only where the point is.
"""

from __future__ import annotations

import numpy as np

from qvla_ros.errors import QvlaError
from qvla_ros.simulation.libero import LiberoObservation
from qvla_ros.simulation.specification import CAMERA_NAMES, CONTROL_PERIOD_S, METRES_PER_UNIT

SUITE = "fake"
MAX_STEPS = 40
INIT_STATE_COUNT = 50
GOAL_DISTANCE_M = 0.1
START_M = np.array([0.0, 0.0, 0.5])


class FakeTask:
    """Succeeds once the point is 0.1 m away from where it started."""

    suite = SUITE

    def __init__(
        self, suite: str, task_index: int, camera_size: int = 256, max_steps: int | None = None
    ) -> None:
        if suite != SUITE:
            fix = "simulator:=libero for a real suite"
            raise QvlaError(
                "task_suite_name", suite, f"{SUITE!r}: this simulator runs no benchmark", fix
            )
        self.task_index = task_index
        self.instruction = f"fake task {task_index}: move away"
        self.max_steps = MAX_STEPS if max_steps is None else max_steps
        self.init_state_count = INIT_STATE_COUNT
        self._camera_size = camera_size
        self._position = START_M.copy()
        self._opening = 0.0
        self._step = 0

    def reset(self, init_state: int | None, seed: int = 0) -> LiberoObservation:
        """Moves the point to the start; the initial state shifts it sideways by millimetres."""
        self._position = START_M + np.array([0.0, 1e-3 * (init_state or 0), 0.0])
        self._start = self._position.copy()
        self._opening = 0.0
        self._step = 0
        return self._observation(render=True)

    def step(self, action: np.ndarray, render: bool) -> tuple[LiberoObservation, bool]:
        """Moves by the first three numbers of the action; rotation is ignored."""
        self._position = self._position + METRES_PER_UNIT * np.clip(action[:3], -1, 1)
        self._opening = 0.04 * (action[6] < 0)
        self._step += 1
        success = float(np.linalg.norm(self._position - self._start)) >= GOAL_DISTANCE_M
        return self._observation(render), success

    def close(self) -> None:
        """Nothing to free."""

    def _observation(self, render: bool) -> LiberoObservation:
        return LiberoObservation(
            step=self._step,
            time_s=self._step * CONTROL_PERIOD_S,
            images={name: self._image() for name in CAMERA_NAMES} if render else {},
            eef_position_m=self._position.copy(),
            eef_quaternion_xyzw=np.array([0.0, 0.0, 0.0, 1.0]),
            joint_positions_rad=np.zeros(7),
            gripper_positions_m=np.array([self._opening, -self._opening]),
        )

    def _image(self) -> np.ndarray:
        image = np.full((self._camera_size, self._camera_size, 3), 96, np.uint8)
        row, column = (np.clip(self._position[:2] + 0.5, 0, 0.99) * self._camera_size).astype(int)
        image[max(0, row - 3) : row + 4, max(0, column - 3) : column + 4] = (255, 0, 0)
        return image
