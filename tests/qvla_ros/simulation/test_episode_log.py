"""Finished episodes are found again, and a damaged log is refused by line."""

from __future__ import annotations

from pathlib import Path

import pytest

from qvla_ros.errors import QvlaError
from qvla_ros.simulation.episode_log import KEY, EpisodeLog

RECORD = {**dict.fromkeys(KEY, 1), "policy": "float", "success": True}
KEY_OF_RECORD = {name: RECORD[name] for name in KEY}


def test_what_was_appended_is_found_by_the_next_run(tmp_path: Path) -> None:
    EpisodeLog(tmp_path).append(RECORD)
    log = EpisodeLog(tmp_path)
    assert log.find(**KEY_OF_RECORD) == RECORD
    assert log.find(**{**KEY_OF_RECORD, "bundle_id": "another"}) is None


def test_without_a_directory_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    log = EpisodeLog(None)
    log.append(RECORD)
    assert log.find(**KEY_OF_RECORD) == RECORD
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("line", ['{"policy": ', "[]", "{}", "null"])
def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    EpisodeLog(tmp_path).append(RECORD)
    with (tmp_path / "episodes.jsonl").open("a") as file:
        file.write(line)
    with pytest.raises(QvlaError, match=r"episodes\.jsonl line 2.*Fix: delete that line"):
        EpisodeLog(tmp_path)
