"""Records demonstrations of the scripted expert, disturbed and recovering, with two cameras.

One episode is one file, `<out>/<suite>/task_<id>/episode_<index>.npz` (numpy, nothing pickled), T
steps of 50 ms:

    label_actions          float32 [T, 7]  the noise-free expert's action at step t: the target
    executed_actions       float32 [T, 7]  what was done: the label with noise, or a random push
    is_push                bool    [T]     a push is under way: its label is not to be learnt
    eef_position_m         float32 [T, 3]  this and the next three: as observed when action t was
                                           chosen (the observation that step t - 1 returned)
    eef_quaternion_xyzw    float32 [T, 4]
    gripper_positions_m    float32 [T, 2]
    joint_positions_rad    float32 [T, 7]
    object_position_m      float32 [T, 3]  middle of the object to be picked; privileged, for
                                           auxiliary losses only
    goal_position_m        float32 [T, 3]  middle of the container's rim; privileged as well
    image_steps            int32   [N]     the steps t that have images
    <camera>_jpeg          uint8   [B]     N JPEG files (4:2:0, the robot's quality), one after
                                           another, not rotated
    <camera>_jpeg_offsets  int64   [N + 1] where each of them starts; cameras: agentview, wrist
    label_chunks           float32 [N, 8, 7], only if a learner drove (see dagger): the expert's
                                           next actions from there
    instruction, suite, task_id, episode, seed, attempt, success_step (-1: the task was not done)

Actions are those of the simulator: six OSC_POSE deltas in [-1, 1], gripper -1 open, +1 close.
Images exist only where no push falls into the next `CHUNK_LENGTH` steps and as many labels follow,
so every image is a training sample.

The scenes are placements sampled by the simulator, never the official initial states: those are the
test set. To teach recovery, the arm starts from random poses, every action carries Gaussian noise,
and now and then a random push is held for some steps (noise injection: Laskey et al. 2017, DART).
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from qvla_offline.robot import LIBERO
from qvla_reference.expert import CLOSE, OPEN, PickPlaceExpert, hand_rotation, step_towards
from qvla_reference.privileged import PickPlaceState, PrivilegedScene
from qvla_ros.atomic import atomic_file
from qvla_ros.errors import QvlaError
from qvla_ros.simulation.libero import ACTION_SIZE, HOLD_ACTION, LiberoObservation, LiberoTask

CAMERAS = ("agentview", "wrist")
CHUNK_LENGTH = 8  # labels a training sample needs from its step on
_SERIES = (
    "label_actions",
    "executed_actions",
    "is_push",
    "eef_position_m",
    "eef_quaternion_xyzw",
    "gripper_positions_m",
    "joint_positions_rad",
    "object_position_m",
    "goal_position_m",
)
_FACTS = ("instruction", "suite", "task_id", "episode", "seed", "attempt", "success_step")


@dataclass(frozen=True)
class Disturbances:
    """How far an episode is driven from the expert's own path, in action units by default."""

    start_at_rest: float = (
        0.25  # share of the episodes that start where a reset leaves the arm, as the test does
    )
    start_offset_m: float = 0.10  # of the others
    start_tilt_rad: float = 0.10
    start_near_object: float = 0.3  # share of the episodes that start close to the object
    start_closed: float = 0.15  # share that start with the gripper closed
    largest_noise: float = (
        0.25  # of the translation; an episode draws its own up to this; rotation has a fifth
    )
    push_every_steps: float = 70.0
    push_steps: tuple[int, int] = (3, 8)
    push_gripper: float = 0.2  # share of the pushes that also flip the gripper


@dataclass(frozen=True)
class Demonstration:
    """One recorded episode: the series and facts of the module's docstring, by name."""

    series: dict[str, np.ndarray]
    image_steps: np.ndarray  # [N]
    jpegs: dict[str, list[bytes]]  # camera -> N files
    facts: dict[str, Any]
    label_chunks: np.ndarray | None = None  # [N, K, 7] if somebody else than the expert drove

    def __len__(self) -> int:
        return len(self.series["label_actions"])

    def image(self, camera: str, index: int) -> np.ndarray:
        """Returns image `index` (of step image_steps[index]), uint8 [H, W, 3], not rotated."""
        return np.asarray(Image.open(io.BytesIO(self.jpegs[camera][index])).convert("RGB"))

    def action_chunk(self, index: int, length: int = CHUNK_LENGTH) -> np.ndarray:
        """Returns the labels from the step of image `index` on, float32 [length, 7]."""
        if self.label_chunks is not None:
            return self.label_chunks[index, :length]
        step = int(self.image_steps[index])
        return self.series["label_actions"][step : step + length]


def record_episode(
    task: LiberoTask,
    expert: PickPlaceExpert,
    seed: tuple[int, ...],
    disturbances: Disturbances = Disturbances(),
    image_period: int | None = 3,
    hold_steps: int = 16,
) -> Demonstration | None:
    """Runs one disturbed episode; None if the task was not done within its step limit.

    seed: every random choice follows from it. image_period: render every so many steps, None for
    never. hold_steps: recorded after success, so that a policy learns to stay up and still.
    """
    rng = np.random.default_rng(seed)
    scene = PrivilegedScene(task)
    task.reset(None, seed=int(rng.integers(2**31)))
    scene.require_graspable()
    observation = random_start(task, scene, rng, disturbances)
    noise = rng.uniform(0.0, disturbances.largest_noise) * np.array([1.0] * 3 + [0.2] * 3 + [0.0])
    pushes = _scheduled_pushes(rng, disturbances)
    push_start, push_end = next(pushes)
    push = np.zeros(ACTION_SIZE)
    rows: list[dict[str, Any]] = []
    frames: dict[int, dict[str, np.ndarray]] = {}
    success_step: int | None = None
    step = 0
    while success_step is None or step < success_step + hold_steps:
        if step >= task.max_steps:
            return None
        state = scene.state()
        label = expert.act(state)
        if step == push_start:
            push = _draw_push(rng, label, disturbances)
        is_push = push_start <= step < push_end
        action = (
            push
            if is_push
            else np.clip(label + noise * rng.standard_normal(ACTION_SIZE), -1.0, 1.0)
        )
        rows.append(series_row(observation, state, label, action, is_push))
        if observation.images:
            frames[step] = observation.images
        step += 1
        if step >= push_end:
            push_start, push_end = (
                next(pushes) if success_step is None else (task.max_steps, task.max_steps)
            )
        render = (
            image_period is not None
            and step % image_period == 0
            and step + CHUNK_LENGTH <= push_start
        )
        observation, success = task.step(action, render)
        if success and success_step is None:
            success_step = step
            push_start = task.max_steps
            push_end = task.max_steps
    usable = [t for t in sorted(frames) if t + CHUNK_LENGTH <= step]
    usable = [t for t in usable if not any(row["is_push"] for row in rows[t : t + CHUNK_LENGTH])]
    return assemble_episode(task, rows, {t: frames[t] for t in usable}, success_step)


def assemble_episode(
    task: LiberoTask,
    rows: list[dict[str, Any]],
    frames: dict[int, dict[str, np.ndarray]],
    success_step: int,
    label_chunks: np.ndarray | None = None,
) -> Demonstration:
    """Stacks the rows of `series_row` and compresses the frames.

    frames: step -> camera -> uint8 [H, W, 3].
    """
    return Demonstration(
        series={name: np.stack([row[name] for row in rows]) for name in _SERIES},
        image_steps=np.array(list(frames), dtype=np.int32),
        jpegs={
            camera: [encode_jpeg(images[camera]) for images in frames.values()]
            for camera in CAMERAS
        },
        facts=dict(
            instruction=task.instruction,
            suite=task.suite,
            task_id=task.task_index,
            success_step=success_step,
        ),
        label_chunks=label_chunks,
    )


def random_start(
    task: LiberoTask, scene: PrivilegedScene, rng: np.random.Generator, disturbances: Disturbances
) -> LiberoObservation:
    """Drives the hand, unrecorded, to the start of the episode; returns a rendered observation."""
    if rng.random() < disturbances.start_at_rest:
        return task.step(np.array(HOLD_ACTION), True)[0]
    state = scene.state()
    center = state.object_center_m
    top = float(state.object_points_m[:, 2].max())
    if rng.random() < disturbances.start_near_object:
        target = np.append(center[:2] + rng.uniform(-0.06, 0.06, 2), top + rng.uniform(0.03, 0.15))
    else:
        offset = disturbances.start_offset_m * rng.uniform(0.0, 1.0)
        target = state.eef_position_m + rng.uniform(-offset, offset, 3)
    target[2] = max(target[2], top + 0.03)
    gripper = CLOSE if rng.random() < disturbances.start_closed else OPEN
    tilt = _small_rotation(rng.uniform(-1.0, 1.0, 3) * disturbances.start_tilt_rad)
    for _ in range(int(rng.integers(12, 25))):
        observation, _ = task.step(
            step_towards(scene.state(), target, gripper, tilt @ hand_rotation(0.0)), False
        )
    hold = np.append(np.zeros(ACTION_SIZE - 1), gripper)
    observation, _ = task.step(hold, True)
    return observation


def _small_rotation(vector: np.ndarray) -> np.ndarray:
    """Returns the rotation [3, 3] about `vector` [3] by its length, radians (Rodrigues)."""
    angle = max(float(np.linalg.norm(vector)), 1e-12)
    x, y, z = vector / angle
    skew = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.eye(3) + np.sin(angle) * skew + (1.0 - np.cos(angle)) * skew @ skew


def _scheduled_pushes(
    rng: np.random.Generator, disturbances: Disturbances
) -> Iterator[tuple[int, int]]:
    """Draws (first step, step after the last) of each push.

    They are drawn ahead, so that no image is rendered that cannot be used.
    """
    start = 0
    while True:
        start += 1 + int(rng.exponential(disturbances.push_every_steps))
        low, high = disturbances.push_steps
        end = start + int(rng.integers(low, high + 1))
        yield start, end
        start = end + CHUNK_LENGTH


def _draw_push(
    rng: np.random.Generator, label: np.ndarray, disturbances: Disturbances
) -> np.ndarray:
    push = np.concatenate([rng.uniform(-1.0, 1.0, 3), rng.uniform(-0.2, 0.2, 3), label[-1:]])
    push[2] = max(push[2], -0.5)  # a hard blow on the floor teaches nothing
    if rng.random() < disturbances.push_gripper:
        push[-1] *= -1.0
    return push


def series_row(
    observation: LiberoObservation,
    state: PickPlaceState,
    label: np.ndarray,
    action: np.ndarray,
    is_push: bool,
) -> dict[str, Any]:
    """Returns one step of the series of a demonstration, by name."""
    values = {
        "label_actions": label,
        "executed_actions": action,
        "eef_position_m": observation.eef_position_m,
        "eef_quaternion_xyzw": observation.eef_quaternion_xyzw,
        "gripper_positions_m": observation.gripper_positions_m,
        "joint_positions_rad": observation.joint_positions_rad,
        "object_position_m": state.object_center_m,
        "goal_position_m": np.append(state.goal_center_m, state.goal_top_m),
    }
    return {name: value.astype(np.float32) for name, value in values.items()} | {
        "is_push": np.bool_(is_push)
    }


def encode_jpeg(image: np.ndarray) -> bytes:
    """Compresses uint8 [H, W, 3] to a JPEG file, 4:2:0, as TensorFlow's encoder writes it.

    This is the JPEG round trip of the robot's image chain.
    """
    buffer = io.BytesIO()
    Image.fromarray(image).save(
        buffer, format="JPEG", quality=LIBERO.jpeg_quality, subsampling="4:2:0"
    )
    return buffer.getvalue()


def episode_path(out: Path, suite: str, task_id: int, episode: int) -> Path:
    """Returns the path of an episode below the folder of all demonstrations."""
    return out / suite / f"task_{task_id:02d}" / f"episode_{episode:05d}.npz"


def write_episode(path: Path, episode: Demonstration) -> None:
    """Writes one episode, whole or not at all."""
    arrays: dict[str, Any] = dict(episode.series, image_steps=episode.image_steps)
    if episode.label_chunks is not None:
        arrays["label_chunks"] = episode.label_chunks
    for camera, files in episode.jpegs.items():
        arrays[f"{camera}_jpeg"] = np.frombuffer(b"".join(files), dtype=np.uint8)
        arrays[f"{camera}_jpeg_offsets"] = np.cumsum([0, *map(len, files)], dtype=np.int64)
    arrays.update({name: np.array(value) for name, value in episode.facts.items()})
    with atomic_file(path) as temporary:
        np.savez(temporary, **arrays)


def read_episode(path: Path) -> Demonstration:
    """Reads one episode; QvlaError if the file is not one."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        jpegs = {}
        for camera in CAMERAS:
            data = arrays[f"{camera}_jpeg"].tobytes()
            offsets = arrays[f"{camera}_jpeg_offsets"]
            jpegs[camera] = [data[a:b] for a, b in itertools.pairwise(offsets)]
        return Demonstration(
            series={name: arrays[name] for name in _SERIES},
            image_steps=arrays["image_steps"],
            jpegs=jpegs,
            facts={name: arrays[name].item() for name in _FACTS if name in arrays},
            label_chunks=arrays.get("label_chunks"),
        )
    except (OSError, ValueError, KeyError) as error:
        raise QvlaError(
            str(path),
            error,
            "an episode of `qvla reference demonstrations`",
            "delete it and record again",
        ) from error
