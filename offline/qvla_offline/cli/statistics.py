"""`qvla statistics`: what compensating quantizers read of the calibration samples."""

from __future__ import annotations

import argparse
from pathlib import Path

from qvla_offline.cli.options import add_calibration_argument, add_checkpoint_argument
from qvla_offline.layer_statistics.options import STATISTICS_OPTIONS
from qvla_offline.option_fields import add_options, given
from qvla_offline.sensitivity.options import SensitivityOptions

HELP = (
    "gather what quantizers read of every layer's inputs: Hessians, for gptq and guided_gptq, and "
    "magnitudes, for awq and smoothquant (goes on where an interrupted run stopped)"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_checkpoint_argument(parser)
    add_calibration_argument(parser)
    parser.add_argument("--out_dir", required=True, type=Path, help="directory to write")
    add_options(parser, SensitivityOptions, STATISTICS_OPTIONS)


def run(args: argparse.Namespace) -> int:
    from qvla_offline.layer_statistics.run import compute_statistics
    from qvla_offline.memory import peak_memory

    options = SensitivityOptions(**given(args, SensitivityOptions))
    statistics = compute_statistics(
        args.pretrained_checkpoint, args.calib_jsonl, args.out_dir, options
    )
    print(f"{len(statistics)} layers; wrote {args.out_dir}; {peak_memory()}")
    return 0
