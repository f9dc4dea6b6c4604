"""`qvla sensitivity`: how much each output channel matters at each bit-width."""

from __future__ import annotations

import argparse
from pathlib import Path

from qvla_offline.cli.options import (
    CALIBRATION_HELP,
    add_scheme_arguments,
    bit_list,
    scheme_overrides,
)

HELP = (
    "score every output channel at every bit-width, in the space of the actions or with "
    "the released proxy"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--pretrained_checkpoint", required=True, type=Path, help="checkpoint directory"
    )
    parser.add_argument(
        "--calib_jsonl", "--calibration", required=True, type=Path, help=CALIBRATION_HELP
    )
    parser.add_argument(
        "--out_path", required=True, type=Path, help="file to write; .pt gives the released layout"
    )
    parser.add_argument(
        "--method", default="action", help="action (default) or hessian (the released proxy)"
    )
    parser.add_argument(
        "--bits", type=bit_list, default=(0, 2, 4, 8), help="bit-widths to score (default: 0,2,4,8)"
    )
    parser.add_argument(
        "--max_samples", type=int, default=32, help="observations to use (default: 32)"
    )
    parser.add_argument(
        "--percdamp", type=float, default=0.01, help="hessian: damping (default: 0.01)"
    )
    parser.add_argument(
        "--probes", type=int, default=4, help="action: backward passes per sample (default: 4)"
    )
    parser.add_argument("--seed", type=int, default=0, help="action: seed of the probes")
    parser.add_argument(
        "--check",
        type=int,
        default=0,
        metavar="N",
        help="action: measure N channels exactly, compare",
    )
    parser.add_argument(
        "--refine",
        type=int,
        default=0,
        metavar="N",
        help="action: measure the N top channels exactly",
    )
    parser.add_argument(
        "--memory_gb",
        type=float,
        default=4.0,
        help="for weights and activations that stay, beside the block at work (default: 4)",
    )
    parser.add_argument("--device", default="cpu", help="torch device (default: cpu)")
    parser.add_argument(
        "--resume", action="store_true", help="go on where an interrupted run stopped"
    )
    parser.add_argument(
        "--save_every",
        type=int,
        help="taken for the released command lines: each finished step is saved anyway",
    )
    parser.add_argument(
        "--skip_bad_lines", action="store_true", help="report bad lines of a .jsonl file and go on"
    )
    parser.add_argument(
        "--unnorm_key", help="dataset whose statistics apply, if the checkpoint holds several"
    )
    parser.add_argument("--robot_path", help="robot description in YAML (default: LIBERO's arm)")
    add_scheme_arguments(parser)


def run(args: argparse.Namespace) -> int:
    from dataclasses import fields

    from qvla_offline.memory import peak_memory
    from qvla_offline.quantization.scheme import QuantizationScheme
    from qvla_offline.sensitivity.run import SensitivityOptions, compute_sensitivity

    named = {
        f.name: getattr(args, f.name) for f in fields(SensitivityOptions) if f.name != "scheme"
    }
    options = SensitivityOptions(**named, scheme=QuantizationScheme(**scheme_overrides(args)))
    sensitivity, agreement = compute_sensitivity(
        args.pretrained_checkpoint, args.calib_jsonl, args.out_path, options, args.resume
    )
    print(f"{'layer':<64} " + " ".join(f"mean S({b})".rjust(12) for b in sensitivity.bits))
    for name, score in sensitivity.scores.items():
        idle = "  (not executed)" if name in sensitivity.not_executed else ""
        print(f"{name:<64} " + " ".join(f"{value:12.4g}" for value in score.mean(axis=1)) + idle)
    if agreement:
        print(agreement.table())
    print(f"wrote {args.out_path}; {peak_memory()}")
    return 0
