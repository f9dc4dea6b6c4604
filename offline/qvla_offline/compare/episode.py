"""Runs one episode in a worker process, which keeps its policies and its simulator."""

from __future__ import annotations

import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from qvla_offline.compare.starts import Start

_HELD_BYTES = 4e9  # of float32 weights, which is how ONNX Runtime holds them by default
_held: dict[tuple[Path, str], Any] = {}  # policies of this process


def run_job(
    bundle: Path, backend: str, start: Start, seed: int, camera_size: int, max_steps: int
) -> dict[str, Any]:
    """Runs one episode; returns what its record says about its course."""
    os.environ.setdefault("LP_NUM_THREADS", "1")  # of the renderer, where there is no GPU
    from qvla_ros.simulation.held_task import held_simulation
    from qvla_ros.simulation.in_process import run_episode

    started_s = time.monotonic()
    policy = _held_policy(bundle, backend)
    task = held_simulation(start.suite, start.task_id, camera_size, max_steps)
    outcome = asdict(run_episode(task, policy, start.init_state, seed))
    return {
        "instruction": task.instruction,
        **outcome,
        "inference_ms": [round(ms, 2) for ms in outcome["inference_ms"]],
        "duration_s": round(time.monotonic() - started_s, 2),
        "engine": policy.engine.name,
    }


def _held_policy(bundle: Path, backend: str) -> Any:
    """The policy of a bundle; policies are kept as far as memory reaches, the newest always."""
    from qvla_ros.policy import load_policy

    key = (bundle, backend)
    if key not in _held:
        options = {"threads": 1} if backend == "onnxruntime" else {}
        policy = load_policy(bundle, backend, **options)
        size = 2 * policy.bundle.quantization.float16_weight_bytes
        while _held and (len(_held) + 1) * size > _HELD_BYTES:
            _held.pop(next(iter(_held))).close()
        policy.warm_up()
        _held[key] = policy
    return _held[key]
