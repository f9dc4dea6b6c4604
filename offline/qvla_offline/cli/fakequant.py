"""`qvla fakequant`: writes a checkpoint with the quantization error in its weights."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from qvla_offline.cli.options import (
    add_checkpoint_argument,
    add_gates_argument,
    add_scheme_arguments,
    add_statistics_argument,
    add_trained_scales_argument,
)
from qvla_offline.option_fields import given
from qvla_offline.quantization.scheme import QuantizationScheme

HELP = (
    "write the checkpoint with quantized and restored weights: same layout and size, "
    "for evaluation anywhere"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_checkpoint_argument(parser)
    add_gates_argument(parser, required=True)
    parser.add_argument(
        "--out_dir", required=True, type=Path, help="directory; replaced if it is an earlier result"
    )
    parser.add_argument(
        "--mode", default="scheme", help="scheme (default: what export stores) or released"
    )
    parser.add_argument(
        "--dtype", choices=["float32"], help="write the target weights so (default: as they are)"
    )
    add_statistics_argument(parser)
    add_trained_scales_argument(parser)
    add_scheme_arguments(parser)


def run(args: argparse.Namespace) -> int:
    import torch

    from qvla_offline.fakequant import fake_quantize
    from qvla_offline.gates import read_gates
    from qvla_offline.memory import peak_memory

    gates = read_gates(args.gates_path)
    scheme = replace(QuantizationScheme(**gates.scheme), **given(args, QuantizationScheme))
    dtype = torch.float32 if args.dtype else None
    out = fake_quantize(
        args.pretrained_checkpoint,
        gates,
        args.out_dir,
        scheme,
        args.mode,
        dtype,
        args.statistics,
        args.trained_scales,
    )
    print(f"wrote {out}; {peak_memory()}")
    return 0
