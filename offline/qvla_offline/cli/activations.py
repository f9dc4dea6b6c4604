"""`qvla activations`: scores what rounding the inputs of each layer does to the actions."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

from qvla_offline.activations.options import ACTIVATION_BITS, ActivationScheme
from qvla_offline.cli.options import (
    add_calibration_argument,
    add_checkpoint_argument,
    add_statistics_argument,
)
from qvla_offline.option_fields import add_options, given, integers
from qvla_offline.sensitivity.options import SensitivityOptions
from qvla_ros.errors import QvlaError

HELP = "score what rounding the inputs of each layer does to the actions: which need more bits"
_SHARED = ("max_samples", "probes", "seed", "memory_gb", "device", "unnorm_key", "robot_path")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_checkpoint_argument(parser)
    add_calibration_argument(parser)
    parser.add_argument(
        "--bits", type=integers, default=(4, 8), help="bits of the inputs (default: 4,8)"
    )
    add_options(parser, ActivationScheme, {"activation_scaling"})
    parser.add_argument(
        "--exact", action="store_true", help="measure every layer on 8 samples too, and compare"
    )
    parser.add_argument("--out_json", type=Path, help="write the scores there as well")
    add_statistics_argument(parser)
    add_options(parser, SensitivityOptions, _SHARED)


def run(args: argparse.Namespace) -> int:
    from qvla_offline.activations.rounding import input_roundings
    from qvla_offline.activations.scores import activation_scores, measured_activation_scores
    from qvla_offline.activations.table import agreement_line, score_table
    from qvla_offline.quantization.stored_statistics import StoredStatistics
    from qvla_offline.sensitivity.action import Probing
    from qvla_offline.sensitivity.inputs import load_inputs, spread
    from qvla_ros.atomic import atomic_file

    if not set(args.bits) <= set(ACTIVATION_BITS[:-1]) or not args.bits:
        raise QvlaError("bits", list(args.bits), "some of 4 and 8", "choose with --bits, e.g. 4,8")
    scheme = ActivationScheme(**given(args, ActivationScheme))
    options = SensitivityOptions(**given(args, SensitivityOptions))
    statistics = {} if args.statistics is None else StoredStatistics(args.statistics)
    inputs = load_inputs(args.pretrained_checkpoint, args.calib_jsonl, options)
    layers = inputs.targets
    if statistics:
        layers = {name: layer for name, layer in layers.items() if name in statistics}
    ways = [
        input_roundings(replace(scheme, activation_bits=bits), layers, statistics, {})
        for bits in args.bits
    ]
    probing = Probing((), options.probes, options.seed)
    scores = activation_scores(inputs.policy, layers, inputs.samples, ways, probing)
    print(score_table(scores, args.bits))
    if args.exact:
        reached = {name: layers[name] for name in scores}
        some = spread(inputs.samples)
        measured = measured_activation_scores(inputs.policy, reached, some, ways)
        print(agreement_line(scores, measured, args.bits))
    if args.out_json:
        document = {
            name: dict(zip(args.bits, s.tolist(), strict=True)) for name, s in scores.items()
        }
        with atomic_file(args.out_json) as temporary:
            temporary.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")
    return 0
