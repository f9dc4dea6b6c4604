"""`qvla train_scales`: trains scales and biases against the actions of the float policy."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from qvla_offline.cli.options import (
    add_calibration_argument,
    add_checkpoint_argument,
    add_gates_argument,
    add_scheme_arguments,
    add_statistics_argument,
)
from qvla_offline.option_fields import add_options, given
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_offline.sensitivity.options import SensitivityOptions
from qvla_offline.training.options import TrainingOptions

HELP = (
    "train the scales and biases of the quantized layers against the actions of the float policy; "
    "their codes stay, and no label is needed"
)
_DATA = {"device", "memory_gb", "skip_bad_lines", "unnorm_key", "robot_path"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_checkpoint_argument(parser)
    add_gates_argument(parser, required=True)
    add_calibration_argument(parser)
    add_statistics_argument(parser)
    parser.add_argument(
        "--out_path", required=True, type=Path, help="file to write, for --trained_scales"
    )
    add_options(parser, TrainingOptions)
    add_options(parser, SensitivityOptions, _DATA)
    add_scheme_arguments(parser)


def run(args: argparse.Namespace) -> int:
    from qvla_offline.gates import read_gates
    from qvla_offline.memory import peak_memory
    from qvla_offline.training.run import train_scales

    gates = read_gates(args.gates_path)
    scheme = replace(QuantizationScheme(**gates.scheme), **given(args, QuantizationScheme))
    data = {name: value for name, value in given(args, SensitivityOptions).items() if name in _DATA}
    statistics = None if args.statistics is None else str(args.statistics)
    train_scales(
        args.pretrained_checkpoint,
        gates,
        args.calib_jsonl,
        args.out_path,
        TrainingOptions(**given(args, TrainingOptions)),
        SensitivityOptions(**data, statistics=statistics, scheme=scheme),
    )
    print(f"wrote {args.out_path}; {peak_memory()}")
    return 0
