"""`qvla random_checkpoint`: a small policy with random weights in the real layout."""

from __future__ import annotations

import argparse

HELP = "write a small checkpoint with random weights, for trying the tools without a trained policy"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out_dir", required=True, help="directory to write; replaced if it exists")
    parser.add_argument("--family", default="openvla-oft", help="layout of the checkpoint (default: openvla-oft)")
    parser.add_argument("--size", default="tiny", help="tiny (28 px images) or small (56 px images)")
    parser.add_argument("--seed", type=int, default=0)


def run(args: argparse.Namespace) -> int:
    from qvla_offline.checkpoints.random_checkpoint import write_random_checkpoint

    path = write_random_checkpoint(args.out_dir, args.family, args.size, args.seed)
    print(f"wrote a random {args.size} {args.family} checkpoint to {path}")
    return 0
