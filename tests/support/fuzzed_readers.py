"""Every reader of the workstation, as a function from a folder with its input to a result."""

from __future__ import annotations

import hashlib
import io
import json
import random
import shutil
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from qvla_offline.calibration import read_calibration, sample_sha256
from qvla_offline.checkpoints.io import load_checkpoint
from qvla_offline.checkpoints.random_checkpoint import write_random_checkpoint
from qvla_offline.datasets.lerobot_reader import read_lerobot
from qvla_offline.datasets.observed import Needs
from qvla_offline.datasets.rosbag_reader import read_rosbag
from qvla_offline.datasets.sources import LeRobotSource
from qvla_offline.export.bundle import export_bundle
from qvla_offline.fakequant import target_shapes
from qvla_offline.gates import read_gates, uniform, write_gates
from qvla_offline.recipe.recipe import resolve_recipe
from qvla_offline.robot import read_robot
from qvla_offline.sensitivity.store import Sensitivity, read_sensitivity, write_sensitivity
from qvla_reference.demonstrations import episode_path, write_episode
from qvla_reference.lerobot_export import export_demonstrations
from qvla_ros.bundle import load_bundle
from qvla_ros.errors import QvlaError, QvlaWarning
from qvla_ros.recording.source import BagSource
from qvla_ros.simulation.specification import PROPRIOCEPTION_NAMES
from tests.support.lerobot_recordings import STEPS, recording
from tests.support.mutations import Mutation, drawn, strict
from tests.support.observations import write_observations
from tests.support.small_bag import BAG_NEEDS, write_small_bag

ROOT = Path(__file__).parents[2]
LONGEST_S = 30


def _has_default(name: str, mutation: Mutation) -> bool:
    """Whether the damage leaves a whole input: what is not written has a documented value."""
    described = name in ("recipe", "robot file")
    mask = bool(mutation.place) and mutation.place[-1] == "mask"  # none: all numbers count
    return (mutation.kind == "delete" and (described or mask)) or (
        mutation.kind == "retype" and described and mutation.value == "null"
    )


CHECKPOINT = "checkpoint"


@dataclass(frozen=True)
class Reader:
    """What is fuzzed. folder: of its input, below the work folder. read: that folder -> anything.

    files: patterns of the files that are damaged.
    """

    folder: str
    files: tuple[str, ...]
    read: Callable[[Path], Any]

    def names(self, work: Path) -> list[str]:
        root = work / self.folder
        found = {path for pattern in self.files for path in root.glob(pattern) if path.is_file()}
        return sorted(str(path.relative_to(root)) for path in found)


def _weights(folder: Path) -> Any:
    checkpoint = load_checkpoint(folder)
    state = {
        name: tensor.numpy().tobytes() for name, tensor in checkpoint.model.state_dict().items()
    }
    facts = (checkpoint.config, checkpoint.normalizations, checkpoint.prompt, checkpoint.step)
    return facts, state


def _facts(folder: Path) -> Any:
    checkpoint = load_checkpoint(folder, lazily=True)
    read = ("min", "max", "q01", "q99", "mask")
    levels = {
        part: [checkpoint.statistics[part].get(name) for name in read]
        for part in ("action", "proprio")
    }
    # what images that are not square would become: the original's network reads it from no file
    config = replace(checkpoint.config, image_resize_strategy="")
    return config, checkpoint.normalizations, levels, checkpoint.prompt


def _rows(folder: Path) -> dict[str, int]:
    return {name: rows for name, (rows, _) in target_shapes(folder.parent / CHECKPOINT).items()}


def _calibration(folder: Path) -> Any:
    checkpoint = load_checkpoint(folder.parent / CHECKPOINT)
    return [sample_sha256(one) for one in read_calibration(folder / "set_1.jsonl", checkpoint)]


def _lerobot(folder: Path) -> Any:
    needs = Needs(("agentview", "wrist"), (True, True), PROPRIOCEPTION_NAMES, "world")
    return [_observed(one) for one in read_lerobot(folder, LeRobotSource(str(folder)), needs, 4)]


def _bag(folder: Path) -> Any:
    found = read_rosbag(folder, BagSource(str(folder)), BAG_NEEDS, 3)
    return [_observed(one) for one in found]


def _observed(one: Any) -> Any:
    pixels = [image.tobytes() for image in one.images]
    return one.text, pixels, one.rotate_180, one.proprioception.tolist()


def _gates(folder: Path) -> Any:
    gates = read_gates(folder / "gates.json", _rows(folder))
    return (
        {name: bits.tolist() for name, bits in gates.layers.items()},
        gates.scheme,
        gates.not_executed,
    )


def _scores(folder: Path) -> Any:
    found = read_sensitivity(folder / "scores.safetensors")
    return found.bits, found.columns, {name: s.tolist() for name, s in found.scores.items()}


READERS = {
    "checkpoint": Reader(CHECKPOINT, ("*.safetensors", "*.pt", "tokenizer.json"), _weights),
    "safetensors header": Reader(CHECKPOINT, ("model.safetensors",), _weights),
    "config files": Reader(
        CHECKPOINT, ("config.json", "preprocessor_config.json", "dataset_statistics.json"), _facts
    ),
    "gates": Reader("gates", ("*.json",), _gates),
    "sensitivities": Reader("scores", ("*",), _scores),
    "bundle": Reader("bundle", ("*",), load_bundle),
    "calibration": Reader("calibration", ("*",), _calibration),
    "lerobot": Reader("lerobot", ("**/*",), _lerobot),
    "bag": Reader("bag", ("*",), _bag),
    "robot file": Reader("robot", ("*.yaml",), read_robot),
    "recipe": Reader("recipe", ("*.yaml",), lambda folder: resolve_recipe(folder / "recipe.yaml")),
}


def write_inputs(work: Path) -> Path:
    """Writes an intact input of every reader below `work`."""
    checkpoint = write_random_checkpoint(work / CHECKPOINT)
    rows = {name: rows for name, (rows, _) in target_shapes(checkpoint).items()}
    for folder in ("gates", "scores", "robot", "recipe"):
        (work / folder).mkdir()
    write_gates(work / "gates" / "gates.json", uniform(rows, 8))
    rng = np.random.default_rng(0)
    scores = {name: rng.random((2, count), np.float32) for name, count in list(rows.items())[:6]}
    columns = dict.fromkeys(scores, 64)
    write_sensitivity(
        work / "scores" / "scores.safetensors", Sensitivity("action", (4, 8), scores, columns)
    )
    export_bundle(checkpoint, uniform(rows, 8), work / "bundle")
    write_observations(work / "calibration", 3, 1)
    recordings = work / "recordings"
    for task_id in STEPS:
        write_episode(episode_path(recordings, "libero_object", task_id, 0), recording(task_id))
    export_demonstrations(recordings, "libero_object", work / "lerobot")
    write_small_bag(work / "bag")
    shutil.copy(ROOT / "config/robots/ur_servo/trained_on.yaml", work / "robot")
    recipe = yaml.safe_load((ROOT / "config/quantize/reference.yaml").read_text())
    recipe |= {"checkpoint": f"../{CHECKPOINT}", "calibration": "../calibration/set_1.jsonl"}
    (work / "recipe" / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return work


def digest(value: Any) -> str:
    """One short text for what a reader gave."""
    return hashlib.sha256(repr(value).encode("utf-8", "backslashreplace")).hexdigest()


@contextmanager
def _at_most(seconds: int) -> Iterator[None]:
    def late(*_: Any) -> None:
        raise TimeoutError(f"longer than {seconds} s")

    previous = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


@dataclass(frozen=True)
class Reading:
    """What a reader gave: a digest of its result, and what it said meanwhile."""

    result: str
    said: frozenset[str]


def reading(name: str, work: Path) -> Reading:
    """Reads the input below `work`, in LONGEST_S at most."""
    reader = READERS[name]
    told = io.StringIO()
    with warnings.catch_warnings(record=True) as caught, redirect_stdout(told):
        warnings.simplefilter("always")
        with _at_most(LONGEST_S):
            result = digest(reader.read(work / reader.folder))
    texts = [str(each.message) for each in caught if issubclass(each.category, QvlaWarning)]
    return Reading(result, frozenset([*texts, *told.getvalue().splitlines()]))


def outcome(name: str, work: Path, mutation: Mutation, intact: Reading) -> str:
    """What a reader makes of a damaged input: "refused", "said", "equal", "other" or a failure.

    A failure begins with "FAIL". The input is intact again afterwards.
    """
    folder = work / READERS[name].folder
    file = folder / mutation.file
    before = file.read_bytes()
    try:
        mutation.apply(folder)
        found = reading(name, work)
    except QvlaError:
        return "refused"
    except Exception as error:
        return f"FAIL {type(error).__name__}: {str(error)[:200]}"
    finally:
        file.write_bytes(before)
    if found.result == intact.result:
        return "equal"
    if found.said - intact.said:
        return "said"
    if strict(mutation) and not _has_default(name, mutation):
        return "FAIL another result without a word"
    return "other"


def random_mutations(name: str, work: Path, count: int, seed: int) -> Iterator[Mutation]:
    """So many damages to the input of a reader, equal for equal seeds."""
    reader = READERS[name]
    rng = random.Random(f"{name} {seed}")
    files = reader.names(work)
    for _ in range(count):
        yield drawn(work / reader.folder, files, rng)


def as_json(name: str, mutation: Mutation) -> str:
    """One line of the corpus."""
    return json.dumps([name, mutation.file, mutation.kind, mutation.place, mutation.value])


def from_json(line: str) -> tuple[str, Mutation]:
    """A line of the corpus: the reader, and the damage to its input."""
    name, file, kind, place, value = json.loads(line)
    return name, Mutation(file, kind, tuple(place), value)
