"""Damages parameter files and bundles, and counts what the robot's readers make of them.

    python -m benchmarks.fuzz_robot_readers --count 3000 --bundle BUNDLE

A parameter file that ROS takes must be read as ROS reads it; any other damage must be refused or
run. Prints a table; whatever ends otherwise is printed below it.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from qvla_ros.bundle import load_bundle
from qvla_ros.doctor.parameter_checks import parameter_findings
from qvla_ros.doctor.parity import parity_observations
from qvla_ros.errors import QvlaError
from qvla_ros.policy import load_policy
from qvla_ros.resources import share_path
from tests.support.mutated_bundles import mutate, sign
from tests.support.mutated_parameters import NODE, mutated, of_ros, of_this


def parameter_file(folder: Path, draw: random.Random) -> str:
    """Reads a damaged file of a robot by ROS, by this project, and by the doctor."""
    sources = sorted(share_path("config/robots").glob("*/node.yaml"))
    path = folder / "node.yaml"
    path.write_text(mutated(draw.choice(sources).read_text(encoding="utf-8"), draw))
    theirs = of_ros(path)
    ours = of_this(path)
    parameter_findings(path, NODE)
    if ours is None:
        return "refused"
    if theirs is None:
        return "refused by ROS alone"
    return "as ROS" if repr(sorted(ours.items())) == repr(sorted(theirs.items())) else "OTHERWISE"


def bundle(folder: Path, draw: random.Random, source: Path) -> str:
    """Loads and runs a bundle with a damaged value, under a signature that fits."""
    directory = shutil.copytree(source, folder / "bundle")
    manifest = json.loads((source / "bundle.json").read_text())
    name = draw.choice(("bundle.json", "statistics.json", "tokenizer.json"))
    content = mutate(copy.deepcopy(json.loads((source / name).read_text())), draw)
    (directory / name).write_text(json.dumps(content))
    try:
        sign(directory, content if name == "bundle.json" else manifest)
        policy = load_policy(directory, "onnxruntime", threads=1)
        policy.infer(parity_observations(policy.bundle)[0])
        policy.close()
    except QvlaError:
        return "refused"
    return "runs"


def damaged_file(folder: Path, draw: random.Random, source: Path) -> str:
    """Loads a bundle with a bit turned in one of its files."""
    directory = shutil.copytree(source, folder / "bundle")
    path = directory / draw.choice(sorted(load_bundle(source).files))
    data = bytearray(path.read_bytes())
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)
    try:
        load_bundle(directory)
    except QvlaError:
        return "refused"
    return "TAKEN"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=3000, help="damages a reader")
    parser.add_argument("--bundle", type=Path, required=True, help="a small one, to damage")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "OFF"
    source = args.bundle.resolve()
    readers: dict[str, Callable[[Path, random.Random], str]] = {
        "parameter file": parameter_file,
        "bundle, signed again": lambda folder, draw: bundle(folder, draw, source),
        "file of a bundle": lambda folder, draw: damaged_file(folder, draw, source),
    }
    print("| reader | damages | outcomes |\n|---|---|---|")
    for name, read in readers.items():
        draw = random.Random(f"{name} {args.seed}")
        counts: Counter[str] = Counter()
        for _ in range(args.count):
            with tempfile.TemporaryDirectory() as folder:
                try:
                    counts[read(Path(folder), draw)] += 1
                except Exception as error:  # a traceback is what is looked for
                    counts[f"TRACEBACK {type(error).__name__}: {error}"] += 1
        outcomes = ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common())
        print(f"| {name} | {args.count} | {outcomes} |", flush=True)


if __name__ == "__main__":
    main()
