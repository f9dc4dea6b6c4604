"""Compares scores with exact measurement among the rows that gates have chosen for one bit-width.

    python benchmarks/score_agreement.py --sensitivity S.safetensors --gates_path G.json --bits 2
        [--rows 64] [--samples 64] [--statistics DIR]
        [--pretrained_checkpoint reference_policy --calibration FILE]

Rows that were chosen because their score is small by luck would measure more than they score, and
in another order. So it draws --rows of the rows that have --bits, spread over their ranks,
quantizes each alone and runs the policy on the first --samples of the calibration set (those that
were scored). It prints Spearman's correlation and the ratios. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from qvla_offline.gates import read_gates
from qvla_offline.quantization.quantizer import NO_STATISTICS
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_offline.sensitivity.exact import Choice, measured_scores, spearman
from qvla_offline.sensitivity.inputs import scoring_inputs
from qvla_offline.sensitivity.options import SensitivityOptions
from qvla_offline.sensitivity.store import read_sensitivity


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sensitivity", type=Path, required=True)
    parser.add_argument("--gates_path", type=Path, required=True)
    parser.add_argument("--bits", type=int, default=2)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--statistics")
    parser.add_argument("--pretrained_checkpoint", type=Path, default=Path("reference_policy"))
    parser.add_argument(
        "--calibration", type=Path, default=Path("reference_policy/calibration_pool.jsonl")
    )
    args = parser.parse_args()
    sensitivity = read_sensitivity(args.sensitivity)
    scores = sensitivity.executed()
    place = sensitivity.bits.index(args.bits)
    chosen = [
        (float(scores[name][place][row]), (name, int(row), args.bits))
        for name, bits in read_gates(args.gates_path).layers.items()
        if name in scores
        for row in np.flatnonzero(bits == args.bits)
    ]
    drawn = spread_over_ranks(chosen, args.rows)
    options = SensitivityOptions(
        max_samples=args.samples,
        scheme=QuantizationScheme(**sensitivity.settings["scheme"]),
        statistics=args.statistics,
    )
    inputs = scoring_inputs(args.pretrained_checkpoint, args.calibration, options, None)
    choices = [choice for _, choice in drawn]
    statistics = inputs.statistics or NO_STATISTICS
    measured = measured_scores(
        inputs.policy, inputs.targets, inputs.samples, choices, options.scheme, statistics
    )
    estimated = np.array([score for score, _ in drawn])
    rank = spearman(estimated, measured)
    ratios = measured / np.maximum(estimated, 1e-30)
    quantiles = np.quantile(ratios, (0.05, 0.5, 0.95)).tolist()
    print(f"{len(drawn)} of {len(chosen)} rows at {args.bits} bits, {len(inputs.samples)} samples")
    print(f"rank correlation {rank:.4f}")
    print("measured / score, 5 %, 50 %, 95 %: " + ", ".join(f"{q:.3f}" for q in quantiles))
    total = float(measured.sum() / estimated.sum())
    print(f"summed measured / summed scores: {total:.3f}")
    print(json.dumps({"rank_correlation": rank, "ratios": quantiles, "of_sums": total}))


def spread_over_ranks(chosen: list[tuple[float, Choice]], count: int) -> list[tuple[float, Choice]]:
    """Draws one of each of `count` equal ranges of rank, of (score, choice)."""
    generator = np.random.default_rng(0)
    ranked = sorted(chosen)
    parts = np.array_split(np.arange(len(ranked)), min(count, len(ranked)))
    return [ranked[int(generator.choice(part))] for part in parts]


if __name__ == "__main__":
    main()
