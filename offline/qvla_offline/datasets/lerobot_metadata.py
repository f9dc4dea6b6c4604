"""Reads the metadata of a LeRobot dataset: features, instructions, and where each episode lies.

Versions 3.0 and 2.1 are read.
Layouts: the `lerobot` library (Apache 2.0), `src/lerobot/datasets/` of its versions 0.3 (2.1) and
0.4 (3.0).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
from pyarrow import ArrowException

from qvla_offline.datasets.lerobot_layout import EPISODES, INFO, TASKS
from qvla_ros.errors import QvlaError, os_error_fix
from qvla_ros.strict_json import read_json

FIX_BROKEN = "download or write the dataset again"
# what content of another form ends in
_MALFORMED = (
    ArrowException,
    AttributeError,
    IndexError,
    KeyError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
)
# of the instructions in tasks.parquet: by name, and as pandas calls an index without a name
_TASK_COLUMNS = ("task", "__index_level_0__")


@dataclass(frozen=True)
class DatasetEpisode:
    """One episode of a dataset.

    videos: feature -> file, and the time of the episode's first frame in that file, s.
    """

    index: int
    length: int
    data: Path
    videos: dict[str, tuple[Path, float]]


@dataclass(frozen=True)
class Metadata:
    """The metadata of a dataset, without its statistics.

    features: name -> {"dtype", "shape", ...} as info.json has them; tasks: task_index ->
    instruction.
    """

    root: Path
    fps: float
    features: dict[str, dict[str, Any]]
    tasks: dict[int, str]
    episodes: tuple[DatasetEpisode, ...]

    def of_kind(self, kinds: Sequence[str]) -> list[str]:
        """Names of the features whose dtype is among `kinds`."""
        return [name for name, feature in self.features.items() if feature["dtype"] in kinds]


def read_metadata(root: Path) -> Metadata:
    """Reads everything below meta/ except the statistics.

    QvlaError if the version is unknown or something is missing or broken.
    """
    info = read_json(root / INFO, FIX_BROKEN)
    try:
        version = info["codebase_version"]
        features = info["features"]
        if version not in _READERS:
            fix = "convert it with the lerobot library's own scripts"
            raise QvlaError(
                f"{root}: codebase_version", version, f"one of {', '.join(_READERS)}", fix
            )
        episodes, tasks = _READERS[version]
        videos = [name for name, feature in features.items() if feature["dtype"] == "video"]
        return Metadata(
            root, float(info["fps"]), features, tasks(root), tuple(episodes(root, info, videos))
        )
    except OSError as error:
        fix = FIX_BROKEN if error.errno is None else os_error_fix(error)
        raise QvlaError(f"{root}/meta", error, "the metadata of a LeRobot dataset", fix) from None
    except _MALFORMED as error:
        found = f"{type(error).__name__}: {error}"
        raise QvlaError(
            f"{root}/meta", found, "the metadata of a LeRobot dataset", FIX_BROKEN
        ) from None


def inside(root: Path, name: str) -> Path:
    """Returns the path of `name` below `root`; QvlaError if it leads elsewhere."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise QvlaError(f"{root}: a file's place", name, "a path inside the dataset", FIX_BROKEN)
    return root / name


def _episodes_v3(
    root: Path, info: dict[str, Any], videos: Sequence[str]
) -> Iterator[DatasetEpisode]:
    for file in sorted(root.glob(f"{EPISODES}/*/*.parquet")):
        table = parquet.read_table(file)
        for row in table.select(
            [name for name in table.column_names if not name.startswith("stats/")]
        ).to_pylist():

            def place(kind: str, template: str, row: dict[str, Any] = row) -> Path:
                indices = {index: row[f"{kind}/{index}"] for index in ("chunk_index", "file_index")}
                return inside(
                    root, template.format(video_key=kind.removeprefix("videos/"), **indices)
                )

            files = {
                name: (
                    place(f"videos/{name}", info["video_path"]),
                    row[f"videos/{name}/from_timestamp"],
                )
                for name in videos
            }
            yield DatasetEpisode(
                row["episode_index"], row["length"], place("data", info["data_path"]), files
            )


def _tasks_v3(root: Path) -> dict[int, str]:
    """Reads the instructions, which are the index of a pandas table.

    The index has no name of its own when lerobot writes it.
    """
    table = parquet.read_table(root / TASKS)
    others = [name for name in table.column_names if name != "task_index"]
    texts = [name for name in _TASK_COLUMNS if name in others] or others
    if "task_index" not in table.column_names or len(texts) != 1:
        found = f"the columns {', '.join(table.column_names)}"
        expected = f"task_index and one of {', '.join(_TASK_COLUMNS)}"
        fix = "name the column of the instructions `task`, or take out the others"
        raise QvlaError(str(root / TASKS), found, expected, fix)
    [column] = texts
    return dict(zip(table["task_index"].to_pylist(), table[column].to_pylist(), strict=True))


def _episodes_v2(
    root: Path, info: dict[str, Any], videos: Sequence[str]
) -> Iterator[DatasetEpisode]:
    for row in _json_lines(root / "meta/episodes.jsonl"):
        index = row["episode_index"]
        place = {"episode_index": index, "episode_chunk": index // info["chunks_size"]}
        files = {
            name: (inside(root, info["video_path"].format(video_key=name, **place)), 0.0)
            for name in videos
        }
        yield DatasetEpisode(
            index, row["length"], inside(root, info["data_path"].format(**place)), files
        )


def _tasks_v2(root: Path) -> dict[int, str]:
    return {row["task_index"]: row["task"] for row in _json_lines(root / "meta/tasks.jsonl")}


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    return (
        json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()
    )


_V2 = (_episodes_v2, _tasks_v2)
# they differ in statistics, unread here
_READERS = {
    "v3.0": (_episodes_v3, _tasks_v3),
    "v2.1": _V2,
    "v2.0": _V2,
}
