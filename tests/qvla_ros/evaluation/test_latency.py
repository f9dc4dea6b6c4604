"""Episodes of a sweep add up to the right points, whatever else is in the log."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from qvla_ros.errors import QvlaError
from qvla_ros.evaluation.episodes import parse_episode
from qvla_ros.evaluation.latency import latency_points, read_episodes, write_points
from qvla_ros.evaluation.plots import success_versus_latency
from qvla_ros.simulation.real_time import MEASURED
from qvla_ros.statistics import wilson_interval

SWEEP = {"blend_steps": 0, "observation_period_s": 0.2, "faults": []}


def record(
    latency_s: float, success: bool, steps: int = 100, hold_steps: int = 10, **changes: Any
) -> dict[str, Any]:
    conditions = {
        "latency_s": latency_s,
        "handover": "skip",
        **SWEEP,
        **changes.pop("conditions", {}),
    }
    lasted = 0.012 if latency_s == MEASURED else latency_s
    episode = {
        "policy": "float",
        "bundle_id": "b1",
        "task_id": 0,
        "instruction": "pick",
        "init_state": 0,
        "success": success,
        "steps": steps,
        "duration_s": 6.0,
        "inference_ms": [10.0, None],
        "stamp_to_command_ms": [20.0, 20.0],
        "jerk_m_s3": None,
        "video": None,
        "conditions": conditions,
        "real_time": {"hold_steps": hold_steps, "latency_s": lasted},
    }
    return {**episode, **changes}


def test_episodes_of_one_latency_and_handover_are_one_point() -> None:
    records = [
        record(0.4, False, steps=280, hold_steps=180),
        record(0.0, True, steps=90),
        record(0.0, True, steps=100),
        record(0.0, False, steps=280, hold_steps=0),
        record(0.0, True, conditions={"handover": "wait"}),
    ]
    now, late, waiting = latency_points(map(parse_episode, records))
    assert (now.handover, now.latency_s, now.successes, now.trials) == ("skip", 0.0, 2, 3)
    assert now.interval == wilson_interval(2, 3)
    assert now.hold_share == pytest.approx(20 / 470)
    assert now.solved_steps == 95
    assert (late.latency_s, late.successes, late.solved_steps) == (0.4, 0, None)
    assert (waiting.handover, waiting.trials) == ("wait", 1)


def test_a_measured_latency_is_placed_at_its_mean() -> None:
    (point,) = latency_points([parse_episode(record(MEASURED, True))])
    assert point.measured
    assert point.latency_s == pytest.approx(0.012)


def test_an_episode_in_lock_step_has_no_latency() -> None:
    event = record(0.0, True)
    del event["conditions"], event["real_time"]
    episode = parse_episode(event)
    assert (episode.conditions, episode.hold_steps) == (None, None)
    assert latency_points([episode]) == []


def test_only_the_sweep_s_own_episodes_are_read(tmp_path: Path) -> None:
    others = [
        record(0.0, True, bundle_id="another"),
        record(0.0, True, policy="stranger"),
        record(0.0, True, conditions={"blend_steps": 2}),
        record(0.0, True, conditions={"faults": ["kill@3"]}),
    ]
    lock_step = {
        key: value
        for key, value in record(0.0, True).items()
        if key not in ("conditions", "real_time")
    }
    log = tmp_path / "episodes.jsonl"
    log.write_text(
        "".join(json.dumps(line) + "\n" for line in [record(0.1, True), *others, lock_step])
    )
    (episode,) = read_episodes(log, SWEEP, {"float": "b1"})
    assert episode.conditions is not None
    assert episode.conditions.latency_s == 0.1
    with pytest.raises(QvlaError, match="without --print_only"):
        read_episodes(tmp_path / "absent.jsonl", SWEEP, {})


def test_the_numbers_and_the_plot_hold_every_point(tmp_path: Path) -> None:
    points = latency_points(
        parse_episode(record(latency_s, latency_s < 0.3)) for latency_s in (0.0, 0.2, 0.4)
    )
    write_points(tmp_path / "latency.csv", points)
    rows = list(csv.DictReader((tmp_path / "latency.csv").open(encoding="utf-8")))
    assert [(row["latency_s"], row["successes"], row["trials"]) for row in rows] == [
        ("0.0", "1", "1"),
        ("0.2", "1", "1"),
        ("0.4", "0", "1"),
    ]
    assert float(rows[0]["success_low"]) == pytest.approx(wilson_interval(1, 1)[0])
    (axes,) = success_versus_latency(points, 0.4).axes
    line, chunk = axes.lines
    assert list(line.get_xdata()) == pytest.approx([0, 200, 400])
    assert list(line.get_ydata()) == [100, 100, 0]
    assert list(chunk.get_xdata()) == [400, 400]
