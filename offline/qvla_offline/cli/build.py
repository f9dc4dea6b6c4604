"""`qvla build`: builds a TensorRT plan from a bundle's graph."""

from __future__ import annotations

import argparse

HELP = (
    "build a TensorRT plan from a bundle's graph; TensorRT-RTX needs no GPU for it, "
    "TensorRT builds for the GPU here"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--bundle", required=True, help="directory of the bundle; the plan goes to its engines/"
    )
    parser.add_argument(
        "--flavour", choices=("rtx", "tensorrt"), help="default: the one installed, rtx first"
    )
    parser.add_argument(
        "--compute_capability",
        help="rtx: GPUs to build for, as 86,89 (default: any that it knows from 80 on)",
    )
    parser.add_argument(
        "--max_prompt_tokens", type=int, default=128, help="longest prompt that the plan takes"
    )


def run(args: argparse.Namespace) -> int:
    from rich.console import Console

    from qvla_offline.engine import PROMPT_TOKENS, build_plan
    from qvla_offline.worker_processes import ended_at_interrupt, spawned
    from qvla_ros.errors import QvlaError
    from qvla_ros.preprocess import MAX_PROMPT_TOKENS

    shortest, usual, _ = PROMPT_TOKENS
    longest = args.max_prompt_tokens
    if not shortest <= longest <= MAX_PROMPT_TOKENS:
        expected = f"{shortest} to {MAX_PROMPT_TOKENS}, which the graph's rotary tables reach"
        raise QvlaError("max_prompt_tokens", longest, expected, f"use {PROMPT_TOKENS[2]}")
    with Console(stderr=True).status(
        f"building a plan for {args.bundle} (a 7B policy takes minutes)"
    ):
        tokens = (shortest, min(usual, longest), longest)
        # The builder is native code: it would go on after Ctrl-C, and hide it.
        with spawned(1) as pool, ended_at_interrupt():
            plan = pool.submit(
                build_plan, args.bundle, args.flavour, args.compute_capability, tokens
            ).result()
    print(
        f"wrote {plan} ({plan.stat().st_size / 1e6:.1f} MB); `qvla audit --bundle "
        f"{args.bundle}` lists its layers"
    )
    return 0
