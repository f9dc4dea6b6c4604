"""Episodes that ended before an interruption are kept; those after it are not begun."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qvla_offline.compare.closed_loop import ClosedLoop, run_missing
from qvla_offline.compare.starts import round_robin
from qvla_ros.bundle import load_bundle
from qvla_ros.simulation.episode_log import EpisodeLog


class Interrupted:
    """A worker that works here and is interrupted after some jobs."""

    def __init__(self, jobs: int) -> None:
        self.left = jobs

    def call(self, function: Any, *arguments: Any) -> Any:
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        return function(*arguments)


def test_ctrl_c_keeps_what_ended_and_the_next_run_does_the_rest(
    place: Path, tmp_path: Path
) -> None:
    bundle = load_bundle(place / "bundle")
    plan = ClosedLoop({"one": bundle, "two": bundle}, round_robin({"fake": 2}))
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        run_missing(plan, EpisodeLog(tmp_path), [Interrupted(3)], said.append)
    assert said[-1].endswith("The same command goes on later.")
    assert len((tmp_path / "episodes.jsonl").read_text().splitlines()) == 3
    run_missing(plan, EpisodeLog(tmp_path), [Interrupted(1)], said.append)
    assert said[-1].startswith("[1/1, 0 min left] two: fake task 0 state 1")
    assert len((tmp_path / "episodes.jsonl").read_text().splitlines()) == 4
