"""`qvla reference train`: trains the bundled policy on recorded demonstrations."""

from __future__ import annotations

import argparse
from pathlib import Path

from qvla_ros.errors import QvlaError

HELP = (
    "train the small bundled policy on demonstrations (resumes where it stopped; new "
    "episodes are picked up)"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--demonstrations",
        type=Path,
        default=Path("data/demonstrations"),
        help="folder of episodes",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("reference_policy"),
        help="checkpoint directory to export to",
    )
    parser.add_argument(
        "--work_dir", type=Path, default=Path("out/training"), help="state, image cache, curve"
    )
    parser.add_argument(
        "--pretrained_checkpoint",
        type=Path,
        help="begin with the weights and the step of this checkpoint, if --work_dir holds "
        "no run to go on with",
    )
    parser.add_argument(
        "--unnorm_key",
        default="libero",
        help="name of the statistics; another name than before makes them anew",
    )
    parser.add_argument(
        "--renormalize", action="store_true", help="make the statistics anew from all episodes"
    )
    parser.add_argument(
        "--suite_weights",
        type=suite_weights,
        metavar="SUITE=WEIGHT,...",
        help="a suite's share of the samples: this times the root of its size (default: "
        "what its tasks add up to, "
        "each by the root of its size); a suite that is not named is left out",
    )
    parser.add_argument(
        "--steps", type=int, default=8000, help="updates in all; a larger number prolongs a run"
    )
    parser.add_argument(
        "--decay_steps",
        type=int,
        default=2000,
        help="last steps, over which the rate falls to zero",
    )
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument(
        "--precision",
        choices=("bfloat16", "float32"),
        default="bfloat16",
        help="of the matrix products",
    )
    parser.add_argument(
        "--save_minutes",
        type=float,
        default=4.0,
        help="time between saves, at which new episodes are picked up too",
    )
    parser.add_argument(
        "--threads", type=int, default=2, help="shards of a batch that run side by side"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--plot_only",
        action="store_true",
        help="draw training.png of --work_dir anew, with its results",
    )


def suite_weights(text: str) -> dict[str, float]:
    """ "libero_object=1,libero_spatial=2" as numbers; QvlaError unless each is positive."""
    shares: dict[str, float] = {}
    for item in text.split(","):
        suite, _, share = item.partition("=")
        try:
            shares[suite.strip()] = float(share)
        except ValueError:
            shares[suite.strip()] = 0.0
        if not 0.0 < shares[suite.strip()] < float("inf"):
            fix = "for example --suite_weights libero_object=1,libero_spatial=2"
            raise QvlaError("suite_weights", item, "SUITE=WEIGHT with a weight above 0", fix)
    return shares


def run(args: argparse.Namespace) -> int:
    from qvla_reference.train import train
    from qvla_reference.training_plot import plot_run
    from qvla_reference.training_state import TrainingOptions

    options = vars(args)
    if options.pop("plot_only"):
        print(plot_run(args.work_dir))
        return 0
    train(TrainingOptions(**options), report=lambda line: print(line, flush=True))
    return 0
