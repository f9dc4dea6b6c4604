"""Writes a LeRobot dataset, version 3.0, with its images embedded in parquet.

The layout is that of the `lerobot` library (Apache 2.0), `src/lerobot/datasets/utils.py` and
`dataset_metadata.py`:

    meta/info.json                              features, totals, path templates
    meta/stats.json                             statistics of every feature over the dataset
    meta/tasks.parquet                          instruction -> task_index, as pandas stores it
    meta/episodes/chunk-000/file-000.parquet    one row an episode: length, place, statistics
    data/chunk-000/file-000.parquet, ...        one row a frame, one row group an episode
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qvla_offline.datasets.lerobot_layout import DATA_PATH, EPISODES, FILE_PATTERN, INFO, TASKS

VERSION = "v3.0"
FILES_PER_CHUNK = 1000
FILE_MEGABYTES = 100  # of a data file, uncompressed: the library's default
QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}


@dataclass(frozen=True)
class Feature:
    """A column as info.json describes it. names: of the dimensions, or None."""

    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...] | None = None

    def arrow_type(self) -> pa.DataType:
        """The type in parquet: an image is its file's bytes, a vector or matrix (nested) lists."""
        if self.dtype == "image":
            return pa.struct({"bytes": pa.binary(), "path": pa.string()})
        kind = pa.bool_() if self.dtype == "bool" else getattr(pa, self.dtype)()
        for _ in self.shape if self.shape != (1,) else ():
            kind = pa.list_(kind)
        return kind

    def hugging_face_type(self) -> dict[str, Any]:
        """The type's name in the metadata that the `datasets` library adds to a parquet file."""
        value = {"dtype": self.dtype, "_type": "Value"}
        if self.dtype == "image":
            return {"_type": "Image"}
        if self.shape == (1,):
            return value
        if len(self.shape) == 1:
            return {"feature": value, "length": self.shape[0], "_type": "List"}
        return {"shape": list(self.shape), "dtype": self.dtype, "_type": f"Array{len(self.shape)}D"}


BOOKKEEPING = {
    "timestamp": Feature("float32", (1,)),
    "frame_index": Feature("int64", (1,)),
    "episode_index": Feature("int64", (1,)),
    "index": Feature("int64", (1,)),
    "task_index": Feature("int64", (1,)),
}


class LeRobotWriter:
    """Writes one dataset below `root`, episode by episode; `finish` completes it.

    Writing cannot be resumed: use a fresh `root`.
    features: without the bookkeeping columns, which the writer adds. Frame i of an episode is at i
    / fps seconds.
    """

    def __init__(
        self, root: Path, features: Mapping[str, Feature], fps: float, robot_type: str
    ) -> None:
        self._root = root
        self._fps = fps
        self._robot_type = robot_type
        self._features = {**features, **BOOKKEEPING}
        self._tasks: dict[str, int] = {}
        self._episodes: list[dict[str, Any]] = []
        self._frames = 0
        self._values: dict[str, list[np.ndarray]] = {name: [] for name in self._features}
        self._files = 0
        self._file_bytes = 0
        self._writer: pq.ParquetWriter | None = None
        hugging_face = {
            "info": {"features": {n: f.hugging_face_type() for n, f in self._features.items()}}
        }
        self._schema = pa.schema(
            [(name, feature.arrow_type()) for name, feature in self._features.items()],
            metadata={"huggingface": json.dumps(hugging_face)},
        )

    def add_episode(
        self,
        task: str,
        columns: Mapping[str, np.ndarray | Sequence[bytes]],
        pixels: Mapping[str, np.ndarray],
    ) -> None:
        """Appends an episode of N frames.

        columns: feature -> array [N, *shape] (or [N] where the shape is (1,)), or N image files.
        pixels: image feature -> uint8 [n, 3], a sample of the episode's pixels, for the statistics.
        """
        episode = len(self._episodes)
        count = len(next(iter(columns.values())))
        frame = np.arange(count)
        filled: dict[str, Any] = {
            **columns,
            "timestamp": (frame / self._fps).astype(np.float32),
            "frame_index": frame,
            "episode_index": np.full(count, episode),
            "index": self._frames + frame,
            "task_index": np.full(count, self._tasks.setdefault(task, len(self._tasks))),
        }
        table = pa.table(
            {n: _column(filled[n], f) for n, f in self._features.items()}, schema=self._schema
        )
        chunk, file = self._write_rows(table)
        statistics = {}
        for name, feature in self._features.items():
            values = (
                pixels[name] / np.float32(255)
                if feature.dtype == "image"
                else np.asarray(filled[name])
            )
            self._values[name].append(values)
            statistics[name] = feature_statistics(values, feature)
        self._episodes.append(
            {
                "episode_index": episode,
                "tasks": [task],
                "length": count,
                "data/chunk_index": chunk,
                "data/file_index": file,
                "dataset_from_index": self._frames,
                "dataset_to_index": self._frames + count,
                "meta/episodes/chunk_index": 0,
                "meta/episodes/file_index": 0,
                **{
                    f"stats/{name}/{kind}": v
                    for name, by_kind in statistics.items()
                    for kind, v in by_kind.items()
                },
            }
        )
        self._frames += count

    def finish(self) -> None:
        """Writes what describes the whole dataset; nothing may be added afterwards."""
        self._close()
        episodes = self._root / EPISODES / FILE_PATTERN.format(chunk_index=0, file_index=0)
        episodes.parent.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(self._episodes), episodes)
        pq.write_table(_tasks_table(list(self._tasks)), self._root / TASKS)
        statistics = {
            n: feature_statistics(np.concatenate(self._values[n]), f)
            for n, f in self._features.items()
        }
        _write_json(self._root / "meta/stats.json", statistics)
        info = {
            "codebase_version": VERSION,
            "robot_type": self._robot_type,
            "total_episodes": len(self._episodes),
            "total_frames": self._frames,
            "total_tasks": len(self._tasks),
            "chunks_size": FILES_PER_CHUNK,
            "data_files_size_in_mb": FILE_MEGABYTES,
            "video_files_size_in_mb": 200,
            "fps": self._fps,
            "splits": {"train": f"0:{len(self._episodes)}"},
            "data_path": DATA_PATH,
            "video_path": None,
            "features": {
                name: {
                    "dtype": f.dtype,
                    "shape": list(f.shape),
                    "names": None if f.names is None else list(f.names),
                }
                for name, f in self._features.items()
            },
        }
        _write_json(self._root / INFO, info)

    def _write_rows(self, table: pa.Table) -> tuple[int, int]:
        """Appends to the current data file, or to a new one if it would grow too large.

        Returns the (chunk, file) that the rows went to.
        """
        if self._writer is None or self._file_bytes + table.nbytes > FILE_MEGABYTES * 2**20:
            self._close()
            path = self._root / DATA_PATH.format(**_place(self._files))
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(path, self._schema)
            self._files = self._files + 1
            self._file_bytes = 0
        self._writer.write_table(table)
        self._file_bytes += table.nbytes
        place = _place(self._files - 1)
        return place["chunk_index"], place["file_index"]

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def feature_statistics(values: np.ndarray, feature: Feature) -> dict[str, Any]:
    """Computes {"min", "max", "mean", "std", "count", "q01" ...} over the first axis.

    The values are nested lists of the feature's shape. Those of an image are per colour channel
    [3, 1, 1] of pixels in [0, 1], as the library gives them.
    """
    shape = (3, 1, 1) if feature.dtype == "image" else feature.shape
    values = np.asarray(values, np.float64)
    found = {
        "min": values.min(0),
        "max": values.max(0),
        "mean": values.mean(0),
        "std": values.std(0),
    }
    found |= dict(
        zip(QUANTILES, np.quantile(values, list(QUANTILES.values()), axis=0), strict=True)
    )
    return {kind: np.reshape(value, shape).tolist() for kind, value in found.items()} | {
        "count": [len(values)]
    }


def _column(values: Any, feature: Feature) -> pa.Array:
    kind = feature.arrow_type()
    if feature.dtype == "image":
        return pa.array([{"bytes": file, "path": None} for file in values], kind)
    return pa.array(
        np.asarray(values)
        .reshape(len(values), *(feature.shape if feature.shape != (1,) else ()))
        .tolist(),
        kind,
    )


def _place(file: int) -> dict[str, int]:
    return {"chunk_index": file // FILES_PER_CHUNK, "file_index": file % FILES_PER_CHUNK}


def _tasks_table(tasks: list[str]) -> pa.Table:
    """Makes the table of tasks, one row each.

    Its metadata make pandas take the instruction for the index, where the library reads it.
    """
    columns = [
        {
            "name": "task_index",
            "field_name": "task_index",
            "pandas_type": "int64",
            "numpy_type": "int64",
            "metadata": None,
        },
        {
            "name": "task",
            "field_name": "task",
            "pandas_type": "unicode",
            "numpy_type": "object",
            "metadata": None,
        },
    ]
    pandas = {
        "index_columns": ["task"],
        "column_indexes": [],
        "columns": columns,
        "pandas_version": "2.0.0",
    }
    table = pa.table(
        {
            "task_index": pa.array(range(len(tasks)), pa.int64()),
            "task": pa.array(tasks, pa.string()),
        }
    )
    return table.replace_schema_metadata({"pandas": json.dumps(pandas)})


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=4, allow_nan=False) + "\n", encoding="utf-8")
