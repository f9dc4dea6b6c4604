"""Reads observations from a LeRobot dataset directory, with images embedded or as video."""

from __future__ import annotations

import bisect
import itertools
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
from pyarrow import ArrowException

from qvla_offline.datasets.lerobot_layout import IMAGE_PREFIX
from qvla_offline.datasets.lerobot_metadata import (
    FIX_BROKEN,
    DatasetEpisode,
    Metadata,
    inside,
    read_metadata,
)
from qvla_offline.datasets.lerobot_state import state_dimensions
from qvla_offline.datasets.observed import Needs, Observed, decoded_image, evenly
from qvla_offline.datasets.sources import LeRobotSource
from qvla_offline.datasets.video import video_frame
from qvla_ros.errors import QvlaError, QvlaWarning, os_error_fix
from qvla_ros.progress import track

_EXAMPLE = "config/calibration/lerobot.yaml"


def read_lerobot(
    root: Path, source: LeRobotSource, needs: Needs, max_samples: int | None
) -> list[Observed]:
    """Reads `max_samples` frames spread evenly over the dataset (None: all).

    QvlaError: an unknown version or feature (it lists those present), a state of another width, a
    file that is missing.
    """
    metadata = read_metadata(root)
    _require_cameras(source, needs)
    features = [
        (source.cameras or {}).get(camera, IMAGE_PREFIX + camera) for camera in needs.cameras
    ]
    for camera, name in zip(needs.cameras, features, strict=True):
        _require(metadata, name, f"cameras.{camera}", ("image", "video"))
    if needs.proprioception:
        _require(metadata, source.state, "state", ("float32", "float64"))
        dimensions = state_dimensions(metadata, source, needs)
        source = replace(source, state_dimensions=dimensions)
    ends = list(itertools.accumulate(episode.length for episode in metadata.episodes))
    if not ends or not ends[-1]:
        raise QvlaError(str(root), "no frames", "at least one", "name another dataset")
    observed = []
    for index in track(evenly(ends[-1], max_samples), "reading the dataset"):
        position = bisect.bisect_right(ends, index)
        episode = metadata.episodes[position]
        frame = index - (ends[position] - episode.length)
        observed.append(_observation(metadata, source, needs, features, episode, frame))
    return observed


def _require_cameras(source: LeRobotSource, needs: Needs) -> None:
    """Raises QvlaError where the description names a camera that the policy has not."""
    named = {"cameras": source.cameras or {}, "rotate_180": source.rotate_180}
    for key, cameras in named.items():
        unknown = sorted(set(cameras) - set(needs.cameras))
        if unknown:
            fix = f"correct {key} in the YAML file that describes the dataset"
            raise QvlaError(key, ", ".join(unknown), f"some of {', '.join(needs.cameras)}", fix)


def _require(metadata: Metadata, name: str, key: str, kinds: tuple[str, ...]) -> None:
    present = metadata.of_kind(kinds)
    if name not in present:
        found = (
            f"of type {metadata.features[name]['dtype']}"
            if name in metadata.features
            else "no such feature"
        )
        fix = (
            f"name the one that is meant as {key} in a YAML file like {_EXAMPLE}, "
            "and pass that file"
        )
        raise QvlaError(f"{metadata.root}: {name}", found, f"one of {', '.join(present)}", fix)


def _observation(
    metadata: Metadata,
    source: LeRobotSource,
    needs: Needs,
    features: list[str],
    episode: DatasetEpisode,
    frame: int,
) -> Observed:
    where = f"{metadata.root}, episode {episode.index}, frame {frame}"
    columns = [name for name in features if name not in episode.videos] + [
        "timestamp",
        "task_index",
    ]
    if needs.proprioception:
        columns.append(source.state)
    row = _row(metadata.root, episode, frame, columns, where)
    images = []
    for name in features:
        if name in episode.videos:
            path, start_s = episode.videos[name]
            images.append(video_frame(path, start_s + row["timestamp"], metadata.fps))
        else:
            images.append(_embedded_image(metadata.root, row[name], f"{where}: {name}"))
    text = (
        metadata.tasks.get(row["task_index"]) if source.instruction is None else source.instruction
    )
    if text is None:
        raise QvlaError(
            f"{where}: task_index",
            row["task_index"],
            f"one of {sorted(metadata.tasks)}",
            FIX_BROKEN,
        )
    upside_down = tuple(camera in source.rotate_180 for camera in needs.cameras)
    return Observed(
        where, text, tuple(images), upside_down, _proprioception(source, needs, row, where)
    )


def _row(
    root: Path, episode: DatasetEpisode, frame: int, columns: list[str], where: str
) -> dict[str, Any]:
    """The one row of a frame: in the file that the metadata name, or in whichever file has it."""
    rows = _rows(episode.data, episode.index, frame, columns, where)
    if not rows:
        files = [file for file in sorted(root.glob("data/*/*.parquet")) if file != episode.data]
        found = [(file, _rows(file, episode.index, frame, columns, where)) for file in files]
        holding = [(file, some) for file, some in found if some]
        if len(holding) == 1:
            file, rows = holding[0]
            warnings.warn(
                f"{root}: the metadata place episode {episode.index} in {episode.data.name}, "
                f"but it is in {file.name}, which is read",
                QvlaWarning,
                stacklevel=2,
            )
    if len(rows) != 1:
        expected = f"one row for it in {episode.data}"
        raise QvlaError(where, f"{len(rows)} rows", expected, FIX_BROKEN)
    return rows[0]


def _rows(
    file: Path, episode: int, frame: int, columns: list[str], where: str
) -> list[dict[str, Any]]:
    filters = [("episode_index", "=", episode), ("frame_index", "=", frame)]
    try:
        rows = parquet.read_table(file, columns=columns, filters=filters).to_pylist()
        return [{name: row[name] for name in columns} for row in rows]
    except OSError as error:
        fix = FIX_BROKEN if error.errno is None else os_error_fix(error)
        raise QvlaError(where, error, f"{file}, a file of the dataset", fix) from None
    except (ArrowException, ValueError, KeyError) as error:
        expected = f"a row with {', '.join(columns)} in {file}"
        raise QvlaError(where, error, expected, FIX_BROKEN) from None


def _embedded_image(root: Path, stored: Any, where: str) -> np.ndarray:
    data, name = (
        (stored.get("bytes"), stored.get("path")) if isinstance(stored, dict) else (None, None)
    )
    if not data and name and inside(root, name).is_file():
        data = inside(root, name).read_bytes()
    if not data:
        raise QvlaError(where, f"no bytes, and no file {name!r}", "an image", FIX_BROKEN)
    return decoded_image(data, where, FIX_BROKEN)


def _proprioception(
    source: LeRobotSource, needs: Needs, row: dict[str, Any], where: str
) -> np.ndarray:
    if not needs.proprioception:
        return np.empty(0)
    try:
        state = np.atleast_1d(np.asarray(row[source.state], np.float64))
    except (TypeError, ValueError):
        found = str(row[source.state])[:80]
        raise QvlaError(f"{where}: {source.state}", found, "numbers", FIX_BROKEN) from None
    chosen = list(range(len(state)) if source.state_dimensions is None else source.state_dimensions)
    if len(chosen) != len(needs.proprioception) or not set(chosen) <= set(range(len(state))):
        found = f"{len(state)} numbers, of which {chosen}"
        expected = f"{len(needs.proprioception)} of them: {', '.join(needs.proprioception)}"
        fix = (
            "choose them with state and state_dimensions in a YAML file like "
            f"{_EXAMPLE}, and pass that file"
        )
        raise QvlaError(f"{where}: {source.state}", found, expected, fix)
    return state[chosen]
