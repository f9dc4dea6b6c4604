"""Names the files of a LeRobot dataset, version 3.0, for its writer and its readers."""

from __future__ import annotations

INFO = "meta/info.json"
TASKS = "meta/tasks.parquet"
EPISODES = "meta/episodes"
FILE_PATTERN = "chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
DATA_PATH = f"data/{FILE_PATTERN}"
IMAGE_PREFIX = "observation.images."
