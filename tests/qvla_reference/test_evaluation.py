"""Closed-loop results are kept apart by weights, and counted per suite and task.

They are run with as few simulators as possible.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from qvla_offline.checkpoints.random_checkpoint import write_random_checkpoint
from qvla_offline.fingerprint import checkpoint_sha256
from qvla_reference.cli.evaluate import add_arguments, missing_jobs, run, take_copy
from qvla_reference.evaluation import Jobs, newest, read_results, success_table, trials_of
from qvla_ros.errors import QvlaError


def entry(
    success: bool = True,
    suite: str = "libero_object",
    task: int = 7,
    state: int = 0,
    **others: object,
) -> dict:
    fields = {
        "suite": suite,
        "task_id": task,
        "init_state": state,
        "success": success,
        "checkpoint_step": 5,
    }
    return {**fields, "checkpoint": "aa", **others}


def options(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(arguments)


def test_the_table_gives_rate_and_interval_of_suites_and_tasks() -> None:
    entries = [entry(index < 16) for index in range(18)] + [
        entry(False, task=8),
        entry(True, "libero_spatial", 0),
    ]
    suite, task_7, task_8, spatial, _ = success_table(entries)
    assert suite.split()[:3] == ["libero_object", "16/19", "44.4%"]  # the mean of 16/18 and 0/1
    assert "lowest 0.0%, task 8" in suite
    assert task_7.split()[:4] == ["task", "7", "16/18", "88.9%"]
    assert "67.2% to 96.9%" in task_7
    assert "0/1" in task_8
    assert spatial.startswith("libero_spatial")


def test_the_newest_checkpoint_is_never_mixed_with_another_of_the_same_step() -> None:
    old = entry(checkpoint="aa")
    new = entry(checkpoint="bb")
    earlier = entry(checkpoint_step=4)
    assert newest([old, earlier, new, new]) == [new, new]
    assert newest([new, old]) == [old]
    without_hash = {name: value for name, value in old.items() if name != "checkpoint"}
    assert newest([without_hash, new]) == [new]
    assert newest([without_hash]) == [without_hash]


def test_only_what_is_missing_of_these_weights_is_run() -> None:
    asked = options(
        "--task_suite_names", "libero_object,libero_spatial", "--num_trials_per_task", "2,1"
    )
    assert len(missing_jobs(asked, [])) == 10 * 2 + 10
    assert (
        len(missing_jobs(asked, [entry(task=3), entry(task=3, state=1), entry(task=3, state=9)]))
        == 28
    )
    named = options(
        "--task_suite_names",
        "libero_object_named",
        "--task_ids",
        "0-4",
        "--num_trials_per_task",
        "2",
    )
    assert len(missing_jobs(named, [])) == 10


def test_a_worker_keeps_its_task_and_helps_out_when_it_is_done() -> None:
    jobs = Jobs({("a", 0): [0, 1], ("a", 1): [0, 1, 2, 3]})
    assert jobs.take(0) == ("a", 1, 0)  # the longest first
    assert jobs.take(1) == ("a", 0, 0)  # one that nobody is at
    assert [jobs.take(1), jobs.take(0)] == [("a", 0, 1), ("a", 1, 1)]
    assert jobs.take(1) == ("a", 1, 2)
    assert len(jobs) == 1
    jobs.drop()
    assert jobs.take(0) is None


def test_every_episode_is_handed_out_once() -> None:
    jobs = Jobs({("a", task): range(task) for task in range(5)})
    taken = []
    while (job := jobs.take(len(taken) % 3)) is not None:
        taken.append(job)
    assert sorted(taken) == [("a", task, state) for task in range(5) for state in range(task)]


@pytest.mark.parametrize("text", ["", "0", "1,2", "many"])
def test_trials_are_one_number_or_one_a_suite(text: str) -> None:
    with pytest.raises(QvlaError, match="num_trials_per_task"):
        trials_of(text, ["a", "b", "c"])


def test_trials_of_one_number_hold_for_all_suites() -> None:
    assert trials_of("20", ["a", "b"]) == [20, 20]
    assert trials_of("20,2", ["a", "b"]) == [20, 2]


def test_the_copy_is_known_by_the_hash_of_its_weights(tmp_path: Path) -> None:
    source = write_random_checkpoint(tmp_path / "tiny")
    assert take_copy(source, tmp_path / "copy") == checkpoint_sha256(source)
    with pytest.raises(QvlaError, match="pretrained_checkpoint"):
        take_copy(tmp_path / "nothing", tmp_path / "copy")


def test_print_only_prints_what_was_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "evaluation.jsonl"
    with pytest.raises(QvlaError, match="qvla reference evaluate"):
        run(options("--print_only", "--out", str(results)))
    results.write_text(
        "".join(json.dumps(line) + "\n" for line in (entry(False, checkpoint="zz"), entry()))
    )
    assert len(read_results(results)) == 2
    run(options("--print_only", "--out", str(results)))
    printed = capsys.readouterr().out
    assert "weights aa, 1 episodes" in printed
    assert "1/1" in printed
