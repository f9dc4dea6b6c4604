"""Exports recorded demonstrations as a LeRobot dataset that others can train on.

An episode of a LeRobot dataset has one frame every 1 / fps seconds. Recordings have an image every
few 50 ms steps only, and none around a push, so one episode of the dataset is one *uninterrupted
run* of frames of a recording: its times are true, and a reader that asks for "the frame before"
gets the one that came 1 / fps earlier.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import simplejpeg

from qvla_offline.datasets.lerobot_layout import IMAGE_PREFIX, INFO
from qvla_offline.datasets.lerobot_writer import Feature, LeRobotWriter
from qvla_reference.dataset_card import dataset_card
from qvla_reference.demonstrations import (
    CAMERAS,
    CHUNK_LENGTH,
    Demonstration,
    encode_jpeg,
    read_episode,
)
from qvla_reference.samples import dataset_actions, proprio_of
from qvla_ros.atomic import atomic_directory
from qvla_ros.errors import QvlaError
from qvla_ros.preprocess import rotate_180
from qvla_ros.progress import track
from qvla_ros.simulation.specification import ACTION_NAMES, CONTROL_PERIOD_S, PROPRIOCEPTION_NAMES

Driver = Literal["expert", "learner"]
# frames and pixels of which image statistics are taken
_STATISTICS_PERIOD = 8
_STATISTICS_STRIDE = 8


@dataclass(frozen=True)
class Exported:
    """Counts of what went into a dataset."""

    recordings: int
    episodes: int
    frames: int
    fps: float


def export_demonstrations(
    demonstrations: Path, suite: str, out: Path, driver: Driver = "expert"
) -> Exported:
    """Writes the recordings of `suite` that `driver` drove to `out`, whole or not at all.

    driver: "expert" for `qvla reference demonstrations`, "learner" for `qvla reference dagger`;
    they have images at different rates, and a LeRobot dataset has one. Raises QvlaError if there
    are none, or if one cannot be read.
    """
    paths = sorted((demonstrations / suite).rglob("episode_*.npz"))
    if not paths:
        fix = "record some with `qvla reference demonstrations`"
        raise QvlaError(
            "demonstrations", f"no episode below {demonstrations / suite}", "at least one", fix
        )
    steps = {path: image_steps(path, driver) for path in track(paths, "looking for recordings")}
    chosen = [path for path in paths if len(steps[path])]
    if not chosen:
        found = (
            f"{len(paths)} recordings below {demonstrations / suite}, none of them "
            f"driven by the {driver}"
        )
        raise QvlaError("driver", found, "at least one", "pass --driver expert or --driver learner")
    period = min(
        (int(np.diff(steps[path]).min()) for path in chosen if len(steps[path]) > 1), default=1
    )
    height, width = read_episode(chosen[0]).image(CAMERAS[0], 0).shape[:2]
    fps = 1.0 / (period * CONTROL_PERIOD_S)
    episodes = frames = 0
    with atomic_directory(out, INFO) as temporary:
        writer = LeRobotWriter(temporary, features(height, width), fps, "panda")
        for recording, path in enumerate(track(chosen, "writing the dataset")):
            episode = read_episode(path)
            for run in uninterrupted_runs(episode.image_steps, period):
                writer.add_episode(*_frames(episode, recording, run))
                episodes = episodes + 1
                frames = frames + len(run)
        writer.finish()
        (temporary / "README.md").write_text(dataset_card(suite, driver, period), encoding="utf-8")
    return Exported(len(chosen), episodes, frames, fps)


def features(height: int, width: int) -> dict[str, Feature]:
    """Describes the columns of the dataset, for cameras of `height` x `width` pixels."""
    images = {
        f"{IMAGE_PREFIX}{c}": Feature("image", (height, width, 3), ("height", "width", "channels"))
        for c in CAMERAS
    }
    return {
        **images,
        "observation.state": Feature("float32", (len(PROPRIOCEPTION_NAMES),), PROPRIOCEPTION_NAMES),
        "action": Feature("float32", (len(ACTION_NAMES),), ACTION_NAMES),
        "action_chunk": Feature("float32", (CHUNK_LENGTH, len(ACTION_NAMES)), ("step", "action")),
        "executed_action": Feature("float32", (len(ACTION_NAMES),), ACTION_NAMES),
        "next.done": Feature("bool", (1,)),
        "next.success": Feature("bool", (1,)),
        "recording_index": Feature("int64", (1,)),
        "recording_step": Feature("int64", (1,)),
    }


def image_steps(path: Path, driver: Driver) -> np.ndarray:
    """Returns the steps [N] of a recording that have images; none if another driver drove it.

    Its images are not read.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            found: Driver = "learner" if "label_chunks" in archive.files else "expert"
            return archive["image_steps"] if found == driver else np.zeros(0, np.int32)
    except (OSError, ValueError, KeyError) as error:
        raise QvlaError(
            str(path),
            error,
            "a recording of `qvla reference demonstrations`",
            "delete it, record again",
        ) from None


def uninterrupted_runs(steps: np.ndarray, period: int) -> list[np.ndarray]:
    """Cuts the indices into `steps` (ascending) where two neighbours are not `period` apart."""
    if len(steps) == 0:
        return []
    return np.split(np.arange(len(steps)), np.flatnonzero(np.diff(steps) != period) + 1)


def upright_jpeg(file: bytes) -> bytes:
    """Turns a JPEG file by 180 degrees and compresses it again at the recorder's quality.

    Decoding repeats chroma samples instead of blending them, so that the encoder finds the ones it
    once wrote: measured on recorded frames, pixels move by 0.08 of 255 on average and by at most
    10.
    """
    return encode_jpeg(
        np.ascontiguousarray(rotate_180(simplejpeg.decode_jpeg(file, fastupsample=True)))
    )


def _frames(
    episode: Demonstration, recording: int, run: np.ndarray
) -> tuple[str, dict[str, np.ndarray | Sequence[bytes]], dict[str, np.ndarray]]:
    """Returns instruction, columns and sampled pixels of some frames, for LeRobotWriter.

    run: indices into image_steps.
    """
    steps = episode.image_steps[run]
    chunks = dataset_actions(np.stack([episode.action_chunk(index) for index in run])).astype(
        np.float32
    )
    success = episode.facts["success_step"]
    columns: dict[str, np.ndarray | Sequence[bytes]] = {
        "observation.state": proprio_of(episode)[steps],
        "action": chunks[:, 0],
        "action_chunk": chunks,
        "executed_action": dataset_actions(episode.series["executed_actions"][steps]).astype(
            np.float32
        ),
        "next.done": steps == episode.image_steps[-1],
        "next.success": (steps + 1 >= success) & (success >= 0),
        "recording_index": np.full(len(run), recording),
        "recording_step": steps,
    }
    pixels = {}
    for camera in CAMERAS:
        files = [upright_jpeg(episode.jpegs[camera][index]) for index in run]
        columns[IMAGE_PREFIX + camera] = files
        looked_at = [simplejpeg.decode_jpeg(file) for file in files[::_STATISTICS_PERIOD]]
        sample = np.stack(looked_at)[:, ::_STATISTICS_STRIDE, ::_STATISTICS_STRIDE]
        pixels[IMAGE_PREFIX + camera] = sample.reshape(-1, 3)
    return episode.facts["instruction"], columns, pixels
