"""Compares the forms of low-bit weights that ONNX Runtime can keep on a CPU.

Float and mixed-bit graph alternate in one run.

    python benchmarks/onnxruntime_weights.py [--pretrained_checkpoint DIR] [--rounds 30]

It prints medians of the CPU time of one thread (other processes do not count), and the largest
difference of the actions from those of the same graph with unpacked weights. Without a checkpoint
it takes the bundled policy's architecture with random weights. The gates are drawn: 5 % of channels
0 bit, 16 % 2, 54 % 4, 20 % 8, 5 % 16. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from qvla_offline.checkpoints.io import load_checkpoint
from qvla_offline.checkpoints.openvla_oft import OpenVLAOFT
from qvla_offline.checkpoints.random_checkpoint import UNNORM_KEY, plausible_statistics, randomize
from qvla_offline.checkpoints.save import save_checkpoint
from qvla_offline.checkpoints.targets import quantization_targets
from qvla_offline.checkpoints.tokenizer import train_tokenizer
from qvla_offline.export.bundle import export_bundle
from qvla_offline.gates import Gates
from qvla_reference.architecture import reference_config
from qvla_ros.bundle import Bundle, load_bundle
from qvla_ros.engines.onnxruntime import WEIGHTS, OnnxRuntimeEngine

SHARES = {0: 0.05, 2: 0.16, 4: 0.54, 8: 0.20, 16: 0.05}
PROMPT_TOKENS = 24


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pretrained_checkpoint")
    parser.add_argument("--rounds", type=int, default=30)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        checkpoint = args.pretrained_checkpoint or write_reference_size(
            Path(scratch) / "checkpoint"
        )
        bundles = {
            "float16": load_bundle(export_bundle(checkpoint, None, Path(scratch) / "float16")),
            "mixed": load_bundle(
                export_bundle(checkpoint, drawn_gates(checkpoint), Path(scratch) / "mixed")
            ),
        }
        variants = {("float16", "unpacked"): bundles["float16"]} | {
            ("mixed", w): bundles["mixed"] for w in WEIGHTS
        }
        results = measure(variants, args.rounds)
    print(
        f"{'graph':<10}{'weights':<16}{'CPU ms':>8}{'ratio':>8}{'weight MB':>11}{'max error':>11}"
    )
    for row in results:
        print(
            f"{row['graph']:<10}{row['weights']:<16}{row['cpu_ms']:>8.1f}{row['speed']:>8.2f}"
            f"{row['weight_bytes'] / 1e6:>11.2f}{row['max_error']:>11.1e}"
        )
    print(json.dumps(results))


def measure(variants: dict[tuple[str, str], Bundle], rounds: int) -> list[dict]:
    """Measures the median CPU ms of each engine, taken in turn; speed: times the float graph's."""
    engines = {
        key: OnnxRuntimeEngine(bundle, threads=1, weights=key[1])
        for key, bundle in variants.items()
    }
    inputs = random_inputs(next(iter(variants.values())))
    # and warms up
    actions = {key: engine.run(inputs)["actions"] for key, engine in engines.items()}
    times_ms: dict[tuple[str, str], list[float]] = {key: [] for key in engines}
    for _ in range(rounds):
        for key, engine in engines.items():
            started = time.thread_time()
            engine.run(inputs)
            times_ms[key].append(1e3 * (time.thread_time() - started))
    medians = {key: statistics.median(values) for key, values in times_ms.items()}
    return [
        {
            "graph": graph,
            "weights": weights,
            "cpu_ms": round(medians[graph, weights], 2),
            "speed": round(medians["float16", "unpacked"] / medians[graph, weights], 3),
            "weight_bytes": variants[graph, weights].quantization.weight_bytes,
            "max_error": float(np.abs(actions[graph, weights] - actions[graph, "unpacked"]).max()),
        }
        for graph, weights in engines
    ]


def random_inputs(bundle: Bundle) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    size = bundle.cameras[0].input_size
    backbones = len(bundle.cameras[0].normalizations)
    shape = (1, 3 * backbones * len(bundle.cameras), size, size)
    return {
        "pixel_values": rng.standard_normal(shape, dtype=np.float32),
        "input_ids": rng.integers(3, 100, (1, PROMPT_TOKENS)),
        "proprio": rng.uniform(-1, 1, (1, len(bundle.statistics["proprio"].low))).astype(
            np.float32
        ),
    }


def write_reference_size(directory: Path) -> Path:
    """Writes the bundled policy's architecture with random weights of unit gain: errors show."""
    tokenizer = train_tokenizer()
    model = OpenVLAOFT(reference_config(tokenizer))
    generator = torch.Generator().manual_seed(0)
    randomize(model, generator)
    save_checkpoint(
        directory,
        model,
        tokenizer,
        {UNNORM_KEY: plausible_statistics(model.config.decoding, generator)},
        step=0,
    )
    return directory


def drawn_gates(checkpoint: str | Path) -> Gates:
    rng = np.random.default_rng(0)
    targets = quantization_targets(load_checkpoint(checkpoint).model)
    layers = {
        n: rng.choice(list(SHARES), len(m.weight), p=list(SHARES.values()))
        for n, m in targets.items()
    }
    return Gates(layers, "drawn")


if __name__ == "__main__":
    main()
