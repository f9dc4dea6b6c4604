"""`qvla reference`: the bundled policy from nothing, stage by stage: record, train, let it drive,
train, evaluate.
"""

from __future__ import annotations

import argparse
import importlib
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import yaml

from qvla_ros.cli.main import VERBS
from qvla_ros.errors import QvlaError

HELP = (
    "run the stages of a training recipe; what is done already is skipped, so the same "
    "command goes on where it was"
)
DEFAULT_RECIPE = Path("config/train/reference.yaml")
STAGES = ("demonstrations", "every_instruction", "train_reference", "dagger", "evaluate_reference")
_FIX = f"compare with {DEFAULT_RECIPE}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--recipe", type=Path, default=DEFAULT_RECIPE, help="YAML file with the stages"
    )
    parser.add_argument(
        "--dry_run", action="store_true", help="check the recipe and print its commands"
    )


def run(args: argparse.Namespace) -> int:
    commands = read_stages(args.recipe)
    for number, command in enumerate(commands, start=1):
        print(f"[{number}/{len(commands)}] qvla {shlex.join(command)}", flush=True)
        if args.dry_run:
            continue
        started = time.monotonic()
        status = run_stage(command)
        if status:
            return status
        print(
            f"[{number}/{len(commands)}] done in {(time.monotonic() - started) / 60:.1f} min",
            flush=True,
        )
    return 0


def run_stage(command: Sequence[str]) -> int:
    """Run a verb in a process of its own, which frees simulators and memory at its end; returns its
    exit status.
    """
    process = subprocess.Popen([sys.executable, "-m", "qvla_ros.cli.main", *command])
    try:
        return process.wait()
    except KeyboardInterrupt:  # the stage was interrupted as well, and saves what it has
        process.wait()
        raise


def read_stages(path: Path) -> list[list[str]]:
    """The command lines of a recipe, without `qvla`; QvlaError (or argparse's exit) for what a verb
    would refuse.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise QvlaError("recipe", f"{path}: {error}", "a YAML file", _FIX) from None
    if (
        not isinstance(content, dict)
        or list(content) != ["stages"]
        or not isinstance(content["stages"], list)
    ):
        raise QvlaError(
            "recipe", path, "one key, stages, with a list of {verb: {option: value}}", _FIX
        )
    return [
        _command(stage, f"{path}: stages[{index}]") for index, stage in enumerate(content["stages"])
    ]


def _command(stage: object, key: str) -> list[str]:
    if not isinstance(stage, dict) or len(stage) != 1 or next(iter(stage)) not in STAGES:
        raise QvlaError(key, stage, f"one of {', '.join(STAGES)}, with its options", _FIX)
    ((verb, options),) = stage.items()
    if not isinstance(options, dict) or not all(
        isinstance(value, str | int | float) for value in options.values()
    ):
        raise QvlaError(
            key, options, f"options of `qvla {verb}` with a value each; true for a switch", _FIX
        )
    command = [verb]
    for name, value in options.items():
        command += (
            [f"--{name}"] if value is True else [] if value is False else [f"--{name}", str(value)]
        )
    parser = argparse.ArgumentParser(prog=f"{key}: qvla {verb}", add_help=False, allow_abbrev=False)
    importlib.import_module(VERBS[verb].module).add_arguments(parser)
    parser.parse_args(command[1:])
    return command
