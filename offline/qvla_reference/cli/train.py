"""`qvla reference train`: trains the bundled policy on recorded demonstrations."""

from __future__ import annotations

import argparse

from qvla_offline.option_fields import add_options, given
from qvla_reference.training_options import TrainingOptions
from qvla_ros.errors import QvlaError

HELP = (
    "train the small bundled policy on demonstrations (resumes where it stopped; new "
    "episodes are picked up)"
)
RESUME_WITH = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_options(parser, TrainingOptions)
    parser.add_argument(
        "--suite_weights",
        type=suite_weights,
        metavar="SUITE=WEIGHT,...",
        help="a suite's share of the samples: this times the root of its size (default: what its "
        "tasks add up to, each by the root of its size); a suite that is not named is left out",
    )
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

    options = TrainingOptions(**given(args, TrainingOptions))
    if args.plot_only:
        print(plot_run(options.work_dir))
        return 0
    train(options, report=lambda line: print(line, flush=True))
    return 0
