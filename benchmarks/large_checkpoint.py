"""Measures time and peak memory of quantizing a 7B checkpoint.

It measures with few decoder layers and extrapolates to 32.

    python benchmarks/large_checkpoint.py --folder DIR [--family openvla] [--layers 1,2] [--samples
    2] [--probes 2]

Writes random checkpoints of full width (both ViTs, 4096 wide decoder, bfloat16) with the given
numbers of decoder layers into DIR, runs `qvla sensitivity` (both methods), `gates`, `fakequant` and
`export` on each as processes of their own, and prints wall time, CPU time and peak memory of every
step. Then it prints what a decoder layer adds (the difference between the two checkpoints over the
difference in layers) and, extrapolated along that line, 32 layers. Nothing is measured at 32 layers
unless you ask for it with --layers 32: that takes 15 GB for the checkpoint, as much again for the
fake-quantized one while it exists, and one to three hours on a CPU. --size tiny runs all steps in a
minute. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ALL_LAYERS = 32
CAMERA_PIXELS = 224
PROPRIO = [-0.2, 0.0, 1.0, 3.1, 0.0, 0.0, 0.02, -0.02]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--folder", type=Path, required=True, help="for checkpoints and results; about 12 GB"
    )
    parser.add_argument("--family", default="openvla")
    parser.add_argument(
        "--layers", default="1,2", help="decoder layers of the checkpoints to measure"
    )
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--probes", type=int, default=2)
    parser.add_argument("--steps", default="hessian,action,gates,fakequant,export")
    parser.add_argument("--memory_gb", type=float, default=4.0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--size",
        default="full",
        choices=("full", "tiny"),
        help="tiny: two layers whatever --layers says",
    )
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    calibration = write_calibration(args.folder, args.samples)
    rows = []
    for layers in [int(part) for part in args.layers.split(",")] if args.size == "full" else [2]:
        rows += measure(args, layers, calibration)
    print_rows(rows)
    print(json.dumps({"rows": rows, "extrapolated": extrapolated(rows)}))


def measure(args: argparse.Namespace, layers: int, calibration: Path) -> list[dict[str, Any]]:
    """Returns one row per step, for a checkpoint with so many decoder layers.

    The checkpoint is removed afterwards.
    """
    folder = args.folder / f"{args.family}-{layers}"
    checkpoint = str(folder / "checkpoint")
    size = (
        ["--full_size", "--num_layers", str(layers)]
        if args.size == "full"
        else ["--size", args.size]
    )
    random = ["random_checkpoint", "--out_dir", checkpoint, "--family", args.family, *size]
    commands = step_commands(args, folder, calibration)
    wanted = args.steps.split(",")
    try:
        rows = [{"layers": layers, "step": "write the checkpoint", **run(random)}]
        for step in (step for step in commands if step in wanted):
            rows.append({"layers": layers, "step": step, **run(commands[step])})
            # as large as its source; nothing reads it
            shutil.rmtree(folder / "fakequant", ignore_errors=True)
        return rows
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def step_commands(
    args: argparse.Namespace, folder: Path, calibration: Path
) -> dict[str, list[str]]:
    """Returns {step: arguments of `qvla`} for the checkpoint in `folder`."""
    source = ["--pretrained_checkpoint", str(folder / "checkpoint")]
    scores = str(folder / "scores.safetensors")
    gates = "gates.json"
    data = [*source, "--calib_jsonl", str(calibration), "--max_samples", str(args.samples)]
    data += ["--memory_gb", str(args.memory_gb), "--device", args.device]
    return {
        "hessian": [
            "sensitivity",
            "--method",
            "hessian",
            *data,
            "--out_path",
            str(folder / "hessian.safetensors"),
        ],
        "action": ["sensitivity", *data, "--probes", str(args.probes), "--out_path", scores],
        "gates": [
            "gates",
            "--proxy_pt",
            scores,
            "--out_json",
            str(folder / gates),
            "--target_avg_bits",
            "4.5",
        ],
        "fakequant": [
            "fakequant",
            *source,
            "--gates_path",
            str(folder / gates),
            "--out_dir",
            str(folder / "fakequant"),
        ],
        "export": [
            "export",
            *source,
            "--gates_path",
            str(folder / gates),
            "--out_dir",
            str(folder / "bundle"),
        ],
    }


def run(arguments: list[str]) -> dict[str, float]:
    """Runs `qvla` with these arguments in a process of its own.

    Returns wall and CPU seconds, and its peak resident bytes.
    """
    print(f"qvla {' '.join(arguments)}", file=sys.stderr)
    started = time.monotonic()
    program = [sys.executable, "-m", "qvla_ros.cli.main", *arguments]
    pid = os.posix_spawn(
        program[0], program, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, 2, 1)]
    )
    _, status, usage = os.wait4(pid, 0)
    if status:
        sys.exit(f"qvla {arguments[0]} ended with {os.waitstatus_to_exitcode(status)}")
    return {
        "wall_s": round(time.monotonic() - started, 1),
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_bytes": 1024 * usage.ru_maxrss,
    }


def extrapolated(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Extrapolates to ALL_LAYERS on the line through the first and the last count.

    Returns {step: per_layer_s (CPU), cpu_s and peak_bytes}.
    """
    found = {}
    for step in dict.fromkeys(row["step"] for row in rows):
        own = [row for row in rows if row["step"] == step]
        first = own[0]
        last = own[-1]
        if first["layers"] == last["layers"]:
            continue

        def line(
            key: str, first: dict[str, Any] = first, last: dict[str, Any] = last
        ) -> tuple[float, float]:
            slope = (last[key] - first[key]) / (last["layers"] - first["layers"])
            return slope, last[key] + slope * (ALL_LAYERS - last["layers"])

        per_layer_s, cpu_s = line("cpu_s")
        found[step] = {
            "per_layer_s": round(per_layer_s, 1),
            "cpu_s": round(cpu_s),
            "peak_bytes": round(max(line("peak_bytes")[1], last["peak_bytes"])),
        }
    return found


def print_rows(rows: list[dict[str, Any]]) -> None:
    print(f"{'step':<22}{'layers':>8}{'wall s':>10}{'CPU s':>10}{'peak GB':>10}")
    for row in rows:
        print(
            f"{row['step']:<22}{row['layers']:>8}{row['wall_s']:>10.1f}{row['cpu_s']:>10.1f}"
            f"{row['peak_bytes'] / 1e9:>10.2f}"
        )
    at_full_size = extrapolated(rows)
    if at_full_size:
        print(
            f"\nextrapolated to {ALL_LAYERS} "
            f"layers\n{'step':<22}{'CPU s a layer':>14}{'CPU h':>10}{'peak GB':>10}"
        )
    for step, row in at_full_size.items():
        print(
            f"{step:<22}{row['per_layer_s']:>14.1f}{row['cpu_s'] / 3600:>10.2f}"
            f"{row['peak_bytes'] / 1e9:>10.2f}"
        )


def write_calibration(folder: Path, count: int) -> Path:
    """Writes a JSONL file and noise for images."""
    generator = np.random.default_rng(0)
    lines = []
    for index in range(count):
        record: dict[str, Any] = {
            "text": "pick up the milk and place it in the basket",
            "proprio": PROPRIO,
        }
        for key in ("image", "wrist_image"):
            record[key] = f"{key}{index}.png"
            pixels = generator.integers(0, 256, (CAMERA_PIXELS, CAMERA_PIXELS, 3), np.uint8)
            Image.fromarray(pixels).save(folder / record[key])
        lines.append(json.dumps(record))
    path = folder / "calibration.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


if __name__ == "__main__":
    main()
