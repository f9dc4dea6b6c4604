"""`qvla quantize`: makes a bundle of a checkpoint, step by step, as one recipe asks."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = (
    "run a recipe: sensitivity, gates, bundle, summary; steps whose inputs are "
    "unchanged are skipped"
)
RESUME_WITH = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--recipe", required=True, type=Path, help="YAML file, e.g. config/quantize/reference.yaml"
    )
    parser.add_argument(
        "--out", type=Path, help="directory to write (default: out_dir of the recipe)"
    )


def run(args: argparse.Namespace) -> int:
    from qvla_offline.recipe import run_recipe

    print(f"wrote {run_recipe(args.recipe, args.out)}")
    return 0
