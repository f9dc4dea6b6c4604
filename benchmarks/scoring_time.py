"""Compares the CPU time of scoring with a sweep of forward passes a layer, as released scripts do.

    python benchmarks/scoring_time.py [--samples 32] [--probes 4] [--swept_layers 2]

It makes a policy of 137 M random weights in memory (the bundled policy's architecture, wider) and
takes, on one thread, the CPU time of the hessian and the action scores of all layers, of gates from
them, and of a sweep: every sample once through the policy for each layer, without the Hessians that
such a script would sum on the way. The sweep is measured for --swept_layers layers and extrapolated
to all of them, which is open arithmetic: every layer costs the same passes. The last line is one
JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from qvla_offline.blockwise.passes import Blockwise
from qvla_offline.blockwise.weights import ResidentWeights
from qvla_offline.checkpoints.empty import new_model
from qvla_offline.checkpoints.model import PolicyInputs
from qvla_offline.checkpoints.random_checkpoint import randomize
from qvla_offline.checkpoints.targets import quantization_targets
from qvla_offline.checkpoints.tokenizer import train_tokenizer
from qvla_offline.gates.assign import assign_gates
from qvla_offline.gates.options import Budget
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_offline.sensitivity.action import Probing, action_scores
from qvla_offline.sensitivity.hessian import columns, hessian_scores
from qvla_offline.sensitivity.prepare import prepared
from qvla_offline.sensitivity.store import Sensitivity
from qvla_reference.architecture import reference_config

BITS = (0, 2, 4, 8)
PROMPT_TOKENS = 24
VIT_WIDTH = 256
DECODER = {"hidden_size": 1024, "intermediate_size": 2720, "num_hidden_layers": 9}
HEADS = 8


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--probes", type=int, default=4)
    parser.add_argument("--swept_layers", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = wide_policy()
    layers = quantization_targets(model)
    weights = sum(parameter.numel() for parameter in model.parameters())
    print(f"{weights / 1e6:.1f} M weights, {len(layers)} layers, {args.samples} samples")
    samples = prepared(model, observations(model, args.samples))
    times = measure(model, samples, args.probes, args.swept_layers)
    sweep = times.pop("sweep, a layer") * len(layers)
    print(f"sweep of {len(layers)} layers, extrapolated from {args.swept_layers}: {sweep:.0f} s")
    for name, seconds in times.items():
        print(f"{name}: {seconds:.1f} s of CPU time, {sweep / seconds:.1f} times less")
    print(json.dumps({"weights": weights, "sweep_s": sweep, "cpu_s": times}))


def measure(model: Any, samples: list[Any], probes: int, swept_layers: int) -> dict[str, float]:
    """Returns the CPU seconds of each way to score, and of the sweep for one layer."""
    policy = Blockwise(model.smooth_actions, ResidentWeights(model), memory_bytes=8e9)
    layers = quantization_targets(model)
    scheme = QuantizationScheme()

    def sweep() -> None:
        with torch.no_grad():
            for _ in range(swept_layers):
                for sample in samples:
                    model.smooth_actions(sample)

    times = {"sweep, a layer": cpu_seconds(sweep)[0] / swept_layers}
    times["hessian scores"], _ = cpu_seconds(
        lambda: list(hessian_scores(policy, layers, samples, BITS))
    )
    times["action scores"], found = cpu_seconds(
        lambda: action_scores(policy, layers, samples, scheme, Probing(BITS, probes))
    )
    scores, idle = found
    arrays = {name: score.numpy() for name, score in scores.items()}
    widths = {name: columns(layer) for name, layer in layers.items()}
    sensitivity = Sensitivity("action", BITS, arrays, widths, idle)
    times["gates"], _ = cpu_seconds(lambda: assign_gates(sensitivity, Budget(4.0), scheme))
    return times


def cpu_seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """Returns the CPU time that `work` takes, and what it gives."""
    before = time.process_time()
    result = work()
    return time.process_time() - before, result


def wide_policy() -> Any:
    """The bundled policy's architecture with 137 M random weights."""
    config = reference_config(train_tokenizer())
    vision = tuple(
        replace(vit, embed_dim=VIT_WIDTH, mlp_hidden=4 * VIT_WIDTH) for vit in config.vision
    )
    heads = {"num_attention_heads": HEADS, "num_key_value_heads": HEADS}
    text = replace(config.text, **DECODER, **heads)
    model = new_model(replace(config, vision=vision, text=text))
    randomize(model, torch.Generator().manual_seed(0))
    return model.eval().requires_grad_(False)


def observations(model: Any, count: int) -> list[PolicyInputs]:
    """Noise in the form of observations, equally long prompts."""
    generator = torch.Generator().manual_seed(1)
    decoding = model.config.decoding
    vision = model.config.vision
    channels = 3 * len(vision) * decoding.num_images
    size = vision[0].image_size

    def one() -> PolicyInputs:
        return PolicyInputs(
            torch.randn(1, channels, size, size, generator=generator),
            torch.randint(3, 100, (1, PROMPT_TOKENS), generator=generator),
            torch.rand(1, decoding.proprio_dim, generator=generator) * 2 - 1,
        )

    return [one() for _ in range(count)]


if __name__ == "__main__":
    main()
