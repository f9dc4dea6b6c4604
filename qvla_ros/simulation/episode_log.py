"""Keeps finished episodes on disk, one JSON line each, so that an interrupted run can go on."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qvla_ros.errors import QvlaError

# The fields that make two episodes the same one: another bundle under the same name is another
# policy. An episode in real time has "conditions" too.
KEY = ("task_suite_name", "task_id", "init_state", "seed", "max_steps", "policy", "bundle_id")


class EpisodeLog:
    """The file `episodes.jsonl` of a directory; None: nothing is kept."""

    def __init__(self, directory: Path | None) -> None:
        self._path = None if directory is None else directory / "episodes.jsonl"
        self._finished: dict[tuple[Any, ...], Mapping[str, Any]] = {}
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if self._path.exists():
                self._finished = {_key(record): record for record in _read(self._path)}

    def find(self, **key: Any) -> Mapping[str, Any] | None:
        """The record of an episode that has finished before, or None; key: KEY and conditions."""
        return self._finished.get(_key(key))

    def append(self, record: Mapping[str, Any]) -> None:
        """Adds one record: a single write of a whole line, on the disk when this returns."""
        self._finished[_key(record)] = record
        if self._path is None:
            return
        line = (json.dumps(record, allow_nan=False) + "\n").encode()
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, line)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _key(record: Mapping[str, Any]) -> tuple[Any, ...]:
    return (*(record[name] for name in KEY), json.dumps(record.get("conditions"), sort_keys=True))


def _read(path: Path) -> list[dict[str, Any]]:
    records = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            record = json.loads(line)
            _key(record)
        except (ValueError, KeyError, TypeError) as error:
            fix = "delete that line: its episode is then run again"
            raise QvlaError(
                f"{path} line {number}", repr(error), "the record of one episode", fix
            ) from None
        records.append(record)
    return records
