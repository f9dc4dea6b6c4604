"""Measures whether a policy node that runs for hours keeps its memory.

It prints resident memory, open files and shared memory over time.

    python benchmarks/endurance.py [--bundle DIR] [--minutes 60] [--rate_hz 10] [--sample_s 10]

A policy node with the real engine, armed, commanding at 100 Hz; a fake robot streams to it at
`rate_hz` from a process of its own. The slope is a least-squares line through the second half, when
caches are full. Ctrl-C ends it early and prints the table so far. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import rclpy
from numpy.typing import NDArray
from private_graph import PrivateGraph, private_graph
from rclpy.context import Context

from qvla_ros.evaluation.shared_memory import SHARED_MEMORY, mapped_by, orphans
from qvla_ros.testing.fault_drill import drill

LINE = "{:.1f} min: {:.1f} MB, {:.0f} open files, {:.1f} MB shared, {:.0f} commands, {:.0f} chunks"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--rate_hz", type=float, default=10.0)
    parser.add_argument("--sample_s", type=float, default=10.0)
    args = parser.parse_args()
    with private_graph(args.bundle) as graph:
        context = Context()
        rclpy.init(context=context, domain_id=graph.domain_id)
        samples, segments = watch(context, graph, args)
        rclpy.try_shutdown(context=context)
        left = sorted(segments & set(orphans()))
    report(np.array(samples), left)


def watch(
    context: Context, graph: PrivateGraph, args: argparse.Namespace
) -> tuple[list[tuple[float, ...]], set[str]]:
    """Returns the rows of the table and the segments that the node mapped.

    A row: minutes, resident MB, open files, MB in shared memory, commands, chunks.
    """
    segments: set[str] = set()
    parameters = {"output": "pose", "backend": "onnxruntime", "engine_options.threads": 1}
    rows: list[tuple[float, ...]] = []
    surroundings = (context, graph.bundle, graph.environment, graph.scratch)
    with drill(*surroundings, rate_hz=args.rate_hz, **parameters) as d:
        d.move()
        started_s = next_s = time.monotonic()
        try:
            while (seconds := time.monotonic() - started_s) < 60 * args.minutes:
                time.sleep(1.0)
                status = d.robot.statuses[-1]
                pid = d.node.process.pid
                if not status.armed:
                    print(
                        f"stopped after {seconds:.0f} s: {status.stop_reason}; armed again",
                        flush=True,
                    )
                    d.move()
                if time.monotonic() < next_s:
                    continue
                next_s += args.sample_s
                open_files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
                row = (
                    seconds / 60,
                    resident_mb(pid),
                    open_files,
                    mapped_mb(pid),
                    status.commands_sent,
                    status.chunks_published,
                )
                rows.append(row)
                segments |= mapped_by(pid)
                print(LINE.format(*row), flush=True)
        except KeyboardInterrupt:
            print("interrupted")
    return rows, segments


def resident_mb(pid: int) -> float:
    """Returns the VmRSS of a process, MB."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0]) / 1e3


def mapped_mb(pid: int) -> float:
    """Returns the size of the mapped segments, MB."""
    paths = [SHARED_MEMORY / name for name in mapped_by(pid)]
    return sum(path.stat().st_size for path in paths if path.exists()) / 1e6


def report(rows: NDArray[np.float64], left: list[str]) -> None:
    """Prints the result.

    left: shared memory that the node had mapped and that no process holds any more.
    """
    if len(rows) < 4:
        print("too short to tell")
        return
    half = rows[len(rows) // 2 :]
    result = {
        "minutes": round(rows[-1, 0], 1),
        "resident_mb": {
            "first": rows[0, 1],
            "half": half[0, 1],
            "last": rows[-1, 1],
            "most": rows[:, 1].max(),
        },
        "slope_mb_an_hour": round(60 * np.polyfit(half[:, 0], half[:, 1], 1)[0], 2),
        "open_files": {"first": rows[0, 2], "last": rows[-1, 2]},
        "shared_mb": {"first": rows[0, 3], "last": rows[-1, 3]},
        "left_in_shared_memory": left,
        "commands": int(rows[-1, 4]),
        "chunks": int(rows[-1, 5]),
    }
    print(
        "| minutes | resident MB: first, half, last | MB an hour | open files | left in "
        "/dev/shm | chunks |"
    )
    print("|---|---|---|---|---|---|")
    resident = ", ".join(f"{result['resident_mb'][name]:.1f}" for name in ("first", "half", "last"))
    files = f"{rows[0, 2]:.0f}, {rows[-1, 2]:.0f}"
    slope = result["slope_mb_an_hour"]
    print(
        f"| {result['minutes']} | {resident} | {slope} | {files} | {len(left)} | "
        f"{result['chunks']} |"
    )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
