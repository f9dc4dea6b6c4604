"""Records sets of observations of the policy at work, as JPEG files and a JSONL file.

Some sets are held out for measuring error, some are for calibration.

A set lies in <out>/<name>.jsonl and <out>/<name>/. One line an observation, as in calibration.jsonl
({"text": full prompt, "image": agent view, "wrist_image": ..., "proprio": 8 raw numbers}), and
"suite", "task_id", "episode" and "step" (control periods from the start of the episode). Images are
upright, 256 x 256.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from qvla_reference.demonstrations import CAMERAS
from qvla_reference.frames import Frame, Policy, roll_out_frames, wanted_chunks
from qvla_ros.atomic import atomic_file
from qvla_ros.bundle import PromptSpec
from qvla_ros.preprocess import prompt_text, rotate_180
from qvla_ros.simulation.libero import LiberoTask

JPEG_QUALITY = 85  # half the bytes of the robot's 95
SUITES = ("libero_object", "libero_spatial", "libero_object_named")
Line = dict[str, Any]


class Share(NamedTuple):
    """The share of one suite in a set: `episodes` roll-outs a task, `frames` of each."""

    tasks: int
    episodes: int
    frames: int


@dataclass(frozen=True)
class ObservationSet:
    """A set with its name.

    seed: first part of the seed of every roll-out; each set and each recorder has another. shares:
    by the suites of SUITES.
    """

    name: str
    seed: int
    shares: tuple[Share, ...]

    def episodes(self) -> Iterator[tuple[int, int, int]]:
        """Lists (number of the suite, task, episode), task after task.

        So one simulator is built for each task.
        """
        for suite, share in enumerate(self.shares):
            for task in range(share.tasks):
                for episode in range(share.episodes):
                    yield suite, task, episode


HELD_OUT = ObservationSet(
    "held_out", 3_000_003, (Share(10, 2, 4), Share(10, 2, 4), Share(50, 1, 1))
)
CALIBRATION_POOL = ObservationSet(
    "calibration_pool", 4_000_003, (Share(10, 1, 8), Share(10, 1, 8), Share(50, 1, 1))
)
# HELD_OUT has served to choose a rounding; this one has served for nothing but a last figure
SECOND_HELD_OUT = ObservationSet(
    "second_held_out", 5_000_003, (Share(10, 1, 4), Share(10, 1, 4), Share(50, 1, 1))
)
SETS = {chosen.name: chosen for chosen in (HELD_OUT, CALIBRATION_POOL, SECOND_HELD_OUT)}


def record_set(
    chosen: ObservationSet,
    out: Path,
    prompt: PromptSpec,
    policy: Policy,
    simulator: Callable[[str, int], LiberoTask],
    progress: Callable[[str], None] = print,
) -> Path:
    """Records what `out` lacks of the set; returns its JSONL file, which appears when it is whole.

    simulator: (suite, task) -> the task, ready to be reset. An interrupted run goes on where it
    was: finished episodes are kept in <name>.jsonl.partial.
    """
    partial = out / f"{chosen.name}.jsonl.partial"
    (out / chosen.name).mkdir(parents=True, exist_ok=True)
    lines = _read(partial)
    done = {(line["suite"], line["task_id"], line["episode"]) for line in lines}
    for suite, task, episode in chosen.episodes():
        if (SUITES[suite], task, episode) in done:
            continue
        share = chosen.shares[suite]
        frames = roll_out_frames(
            simulator(SUITES[suite], task),
            policy,
            (chosen.seed, suite, task, episode),
            wanted_chunks(share.frames, task * share.episodes + episode),
        )
        place = {"suite": SUITES[suite], "task_id": task, "episode": episode}
        new = [_write_frame(out, chosen.name, prompt, frame, place) for frame in frames]
        lines += new
        _write(partial, lines)
        steps = ", ".join(str(frame.step) for frame in frames)
        progress(f"{SUITES[suite]} task {task} episode {episode}: steps {steps}")
    _write(out / f"{chosen.name}.jsonl", spread(lines))
    partial.unlink(missing_ok=True)
    return out / f"{chosen.name}.jsonl"


def spread(lines: Sequence[Line]) -> list[Line]:
    """Orders the lines so that every first part is even over suites, tasks and time."""
    places: list[tuple[float, str, int, Line]] = []
    for suite in dict.fromkeys(line["suite"] for line in lines):
        turns: list[tuple[int, int, Line]] = []
        by_task: dict[int, list[Line]] = {}
        for line in lines:
            if line["suite"] == suite:
                by_task.setdefault(line["task_id"], []).append(line)
        for task, own in by_task.items():
            own = sorted(own, key=lambda line: (line["episode"], line["step"]))
            turns += [((turn - task) % len(own), task, line) for turn, line in enumerate(own)]
        turns.sort(key=lambda item: item[:2])
        places += [
            ((index + 0.5) / len(turns), suite, index, line)
            for index, (_, _, line) in enumerate(turns)
        ]
    return [line for *_, line in sorted(places, key=lambda place: place[:3])]


def encode(image: np.ndarray) -> bytes:
    """Compresses uint8 [H, W, 3] to a small JPEG file (progressive, 4:2:0)."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(
        buffer,
        format="JPEG",
        quality=JPEG_QUALITY,
        subsampling="4:2:0",
        optimize=True,
        progressive=True,
    )
    return buffer.getvalue()


def _write_frame(out: Path, folder: str, prompt: PromptSpec, frame: Frame, place: Line) -> Line:
    suite = place["suite"].removeprefix("libero_")
    stem = f"{folder}/{suite}_{place['task_id']:02d}_{place['episode']}_{frame.step:03d}"
    names = {"image": f"{stem}.jpg", "wrist_image": f"{stem}_wrist.jpg"}
    for camera, name in zip(CAMERAS, names.values(), strict=True):
        upright = np.ascontiguousarray(rotate_180(frame.images[camera]))
        with atomic_file(out / name) as temporary:
            temporary.write_bytes(encode(upright))
    return {
        "text": prompt_text(prompt, frame.instruction),
        **names,
        "proprio": [round(float(value), 6) for value in frame.proprioception],
        **place,
        "step": frame.step,
    }


def _read(path: Path) -> list[Line]:
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _write(path: Path, lines: Sequence[Line]) -> None:
    with atomic_file(path) as temporary:
        text = "".join(json.dumps(line) + "\n" for line in lines)
        temporary.write_text(text, encoding="utf-8")
