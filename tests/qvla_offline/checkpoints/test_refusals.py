"""A checkpoint that cannot be used is refused by every verb that reads one, with the fix."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from qvla_offline.checkpoints.random_checkpoint import write_random_checkpoint
from qvla_offline.checkpoints.stored import INDEX, SINGLE_FILE
from qvla_offline.fakequant import target_shapes
from qvla_offline.gates import uniform, write_gates
from qvla_ros.cli.main import main

SHARD = "model-00002-of-00002.safetensors"
HEAD = "action_head--1000_checkpoint.pt"
STATISTICS = "dataset_statistics.json"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in two shards, gates for it and one observation to calibrate with."""
    folder = tmp_path_factory.mktemp("work")
    checkpoint = write_random_checkpoint(folder / "checkpoint")
    rows = {name: rows for name, (rows, _) in target_shapes(checkpoint).items()}
    write_gates(folder / "gates.json", uniform(rows, 8))
    tensors = load_file(checkpoint / SINGLE_FILE)
    (checkpoint / SINGLE_FILE).unlink()
    weight_map = {
        name: SHARD.replace("2", str(1 + index % 2), 1) for index, name in enumerate(tensors)
    }
    for shard in set(weight_map.values()):
        save_file(
            {name: tensors[name] for name in tensors if weight_map[name] == shard},
            checkpoint / shard,
        )
    (checkpoint / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    line: dict[str, Any] = {"text": "pick up the milk", "proprio": [0.0] * 8}
    for view in ("image", "wrist_image"):
        line[view] = f"{view}.png"
        Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(folder / f"{view}.png")
    (folder / "calibration.jsonl").write_text(json.dumps(line))
    return folder


def edited(file: Path, change: Callable[[Any], Any]) -> None:
    file.write_text(json.dumps(change(json.loads(file.read_text()))))


def truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def narrower(statistics: dict[str, Any]) -> dict[str, Any]:
    """Statistics of an arm with one joint less."""
    [(key, entry)] = statistics.items()
    action = {level: values[:-1] for level, values in entry["action"].items()}
    return {key: {**entry, "action": action}}


class Trap:
    """Unpickled, it makes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.file), "w")


def trapped(path: Path) -> None:
    torch.save({"module.model.fc1.weight": Trap(path.parent / "trapped")}, path / HEAD)


WEIGHTS = ("sensitivity", "export", "quantize", "fakequant")
FACTS = ("sensitivity", "export", "quantize")
DAMAGE: dict[str, tuple[Callable[[Path], object], str, tuple[str, ...]]] = {
    "a missing shard": (lambda path: (path / SHARD).unlink(), SHARD, WEIGHTS),
    "a truncated shard": (lambda path: truncated(path / SHARD), SHARD, WEIGHTS),
    "an unknown backbone": (
        lambda path: edited(
            path / "config.json", lambda data: {**data, "vision_backbone_id": "dinosiglip-vit-xl"}
        ),
        "vision_backbone_id",
        WEIGHTS,
    ),
    "code in a pickle": (trapped, HEAD, WEIGHTS),
    "two datasets": (
        lambda path: edited(
            path / STATISTICS, lambda data: {**data, "other": next(iter(data.values()))}
        ),
        "unnorm_key",
        FACTS,
    ),
    "no dataset": (
        lambda path: edited(path / STATISTICS, lambda data: {}),
        str(STATISTICS),
        FACTS,
    ),
    "statistics of another width": (
        lambda path: edited(path / STATISTICS, narrower),
        "action.min",
        FACTS,
    ),
}


@pytest.mark.parametrize(
    ("name", "verb"), [(name, verb) for name, (_, _, verbs) in DAMAGE.items() for verb in verbs]
)
def test_a_bad_checkpoint_is_refused_with_the_fix(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, verb: str
) -> None:
    damage, key, _ = DAMAGE[name]
    checkpoint = shutil.copytree(work / "checkpoint", tmp_path / "checkpoint")
    out = tmp_path / "out"
    damage(checkpoint)
    source = ["--pretrained_checkpoint", str(checkpoint)]
    data = ["--calib_jsonl", str(work / "calibration.jsonl")]
    recipe = {
        "checkpoint": str(checkpoint),
        "calibration": str(work / "calibration.jsonl"),
        "out_dir": str(out),
        "gates": {"target_avg_bits": 8.0},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    command = {
        "sensitivity": [
            "sensitivity",
            *source,
            *data,
            "--out_path",
            str(out / "scores.safetensors"),
        ],
        "export": ["export", *source, "--out_dir", str(out)],
        "quantize": ["quantize", "--recipe", str(tmp_path / "recipe.yaml")],
        "fakequant": [
            "fakequant",
            *source,
            "--gates_path",
            str(work / "gates.json"),
            "--out_dir",
            str(out),
        ],
    }[verb]
    assert main(command) == 2
    printed = capsys.readouterr().err
    assert key in printed.splitlines()[0]
    assert all(f"  {label}:" in printed for label in ("got", "expected", "fix"))
    assert "Traceback" not in printed
    assert not (tmp_path / "trapped").exists()
    # the recipe's notes
    assert {file.name for file in out.rglob("*") if file.is_file()} <= {"steps.json"}
