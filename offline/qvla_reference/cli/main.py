"""`qvla reference`: makes the bundled policy from nothing, stage by stage.

The stages are: record, train, let it drive, train, evaluate. `qvla reference STAGE` runs one.
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

from qvla_ros.cli.verbs import Verb
from qvla_ros.errors import QvlaError
from qvla_ros.yaml_file import read_yaml

HELP = (
    "run one stage of making the bundled policy, or (without STAGE, or with `all`) those of "
    "a training recipe; what is done already is skipped, so the same command goes on where "
    "it was"
)
DEFAULT_RECIPE = Path("config/train/reference.yaml")
_EXTRA = "offline,libero"
STAGES = {
    "demonstrations": Verb(
        "qvla_reference.cli.demonstrations", "record a scripted expert in LIBERO", _EXTRA
    ),
    "every_instruction": Verb(
        "qvla_reference.cli.every_instruction",
        "record the same pictures, labelled for each object",
        _EXTRA,
    ),
    "train": Verb("qvla_reference.cli.train", "train the policy on the recordings", _EXTRA),
    "dagger": Verb(
        "qvla_reference.cli.dagger", "let the policy drive and the expert label it", _EXTRA
    ),
    "evaluate": Verb(
        "qvla_reference.cli.evaluate", "measure a checkpoint's success, without ROS", _EXTRA
    ),
    "observations": Verb(
        "qvla_reference.cli.observations",
        "record observations at work, held out for `qvla error`",
        _EXTRA,
    ),
    "export_demonstrations": Verb(
        "qvla_reference.cli.export_demonstrations", "write recordings as a LeRobot dataset", _EXTRA
    ),
}
_FIX = f"compare with {DEFAULT_RECIPE}"
RESUME_WITH = ""


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
        print(f"[{number}/{len(commands)}] qvla reference {shlex.join(command)}", flush=True)
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
    """Runs a stage in a process of its own; returns its exit status.

    The process frees simulators and memory at its end.
    """
    program = [sys.executable, "-m", "qvla_ros.cli.main", "reference", *command]
    process = subprocess.Popen(program)
    try:
        return process.wait()
    except KeyboardInterrupt:  # the stage was interrupted as well, and saves what it has
        process.wait()
        raise


def read_stages(path: Path) -> list[list[str]]:
    """Reads the stages of a recipe as command lines without `qvla reference`.

    QvlaError (or argparse's exit) for what a stage would refuse.
    """
    content = read_yaml(path, "recipe", _FIX)
    if (
        not isinstance(content, dict)
        or list(content) != ["stages"]
        or not isinstance(content["stages"], list)
    ):
        raise QvlaError(
            "recipe", path, "one key, stages, with a list of {stage: {option: value}}", _FIX
        )
    return [
        _command(stage, f"{path}: stages[{index}]") for index, stage in enumerate(content["stages"])
    ]


def _command(stage: object, key: str) -> list[str]:
    if not isinstance(stage, dict) or len(stage) != 1 or next(iter(stage)) not in STAGES:
        raise QvlaError(key, stage, f"one of {', '.join(STAGES)}, with its options", _FIX)
    ((name, options),) = stage.items()
    if not isinstance(options, dict) or not all(
        isinstance(value, str | int | float) for value in options.values()
    ):
        raise QvlaError(
            key,
            options,
            f"options of `qvla reference {name}` with a value each; true for a switch",
            _FIX,
        )
    command = [name]
    for option, value in options.items():
        command += (
            [f"--{option}"]
            if value is True
            else []
            if value is False
            else [f"--{option}", str(value)]
        )
    parser = argparse.ArgumentParser(prog=f"{key}: {name}", add_help=False, allow_abbrev=False)
    importlib.import_module(STAGES[name].module).add_arguments(parser)
    parser.parse_args(command[1:])
    return command
