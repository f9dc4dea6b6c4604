"""`qvla random_checkpoint`: writes a policy with random weights in the real layout."""

from __future__ import annotations

import argparse

HELP = "write a checkpoint with random weights, for trying the tools without a trained policy"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out_dir", required=True, help="directory to write; replaced if it is an earlier result"
    )
    parser.add_argument(
        "--family",
        default="openvla_oft",
        help="openvla, openvla_oft (default), openvla_oft_diffusion, openvla_oft_film or univla",
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--size", default="tiny", help="tiny (28 px images, default) or small (56 px images)"
    )
    size.add_argument(
        "--full_size",
        action="store_true",
        help="the dimensions of the released 7B policies, bfloat16: 15 GB",
    )
    parser.add_argument(
        "--num_layers", type=int, help="decoder layers at full size (default: all 32)"
    )
    parser.add_argument("--seed", type=int, default=0)


def run(args: argparse.Namespace) -> int:
    from rich.console import Console

    from qvla_offline.checkpoints.random_checkpoint import write_random_checkpoint

    size = "full" if args.full_size else args.size
    with Console(stderr=True).status("writing") as status:
        path = write_random_checkpoint(
            args.out_dir,
            args.family,
            size,
            args.seed,
            args.num_layers,
            lambda name: status.update(f"writing {name}"),
        )
    print(f"wrote a random {size} {args.family} checkpoint to {path}")
    return 0
