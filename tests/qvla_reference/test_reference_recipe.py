"""The recipe of the bundled policy is refused as a whole before its first stage.

Stages run in order and are stopped by a failure.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from qvla_reference.cli import main as reference
from qvla_ros.errors import QvlaError

RECIPE = Path(__file__).parents[2] / "config/train/reference.yaml"


def written(tmp_path: Path, stages: object) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({"stages": stages}))
    return path


def test_the_recipe_of_the_repository_holds_for_every_stage() -> None:
    commands = reference.read_stages(RECIPE)
    assert {command[0] for command in commands} == {*reference.STAGES} - {
        "observations",
        "export_demonstrations",
    }
    assert commands[-1][0] == "evaluate"


def test_switches_are_given_without_a_value(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        [{"evaluate": {"print_only": True}}, {"train": {"renormalize": False}}],
    )
    assert reference.read_stages(path) == [
        ["evaluate", "--print_only"],
        ["train"],
    ]


@pytest.mark.parametrize(
    "stages",
    [
        "train",
        [{"quantize": {}}],
        [{"dagger": None}],
        [{"dagger": {"episodes": [1]}}],
        [{"dagger": {}, "train": {}}],
    ],
)
def test_what_is_no_stage_is_refused(stages: object, tmp_path: Path) -> None:
    with pytest.raises(QvlaError):
        reference.read_stages(written(tmp_path, stages))


def test_an_unknown_option_is_refused_before_any_stage_runs(tmp_path: Path) -> None:
    path = written(tmp_path, [{"demonstrations": {"episodes": 1}}, {"dagger": {"episode": 1}}])
    with pytest.raises(SystemExit):
        reference.run(argparse.Namespace(recipe=path, dry_run=False))


def test_stages_run_in_order_until_one_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, [{"demonstrations": {"episodes": 1}}, {"train": {}}, {"dagger": {}}])
    ran: list[str] = []

    def stage(command: Sequence[str]) -> int:
        ran.append(command[0])
        return 3 if command[0] == "train" else 0

    monkeypatch.setattr(reference, "run_stage", stage)
    assert reference.run(argparse.Namespace(recipe=path, dry_run=False)) == 3
    assert ran == ["demonstrations", "train"]


def test_a_stage_reports_its_exit_status() -> None:
    assert reference.run_stage(["no_such_verb"]) == 2
