"""`qvla sensitivity`: scores how much each output channel matters at each bit-width."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from qvla_offline.cli.options import (
    add_calibration_argument,
    add_checkpoint_argument,
    add_scheme_arguments,
    add_worker_arguments,
)
from qvla_offline.option_fields import add_options, given
from qvla_offline.quantization.scheme import COMPENSATING, QuantizationScheme
from qvla_offline.sensitivity.options import SensitivityOptions

if TYPE_CHECKING:
    from qvla_offline.workers.worker import Worker

HELP = (
    "score every output channel at every bit-width, in the space of the actions or with "
    "the released proxy"
)
RESUME_WITH = "--resume"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_checkpoint_argument(parser)
    add_calibration_argument(parser)
    parser.add_argument(
        "--out_path", required=True, type=Path, help="file to write; .pt gives the released layout"
    )
    add_options(parser, SensitivityOptions)
    parser.add_argument(
        "--resume", action="store_true", help="go on where an interrupted run stopped"
    )
    parser.add_argument(
        "--save_every",
        type=int,
        help="taken for the released command lines: each finished step is saved anyway",
    )
    add_worker_arguments(
        parser,
        None,
        "action: processes that share the samples, each within --memory_gb (default: this one)",
    )
    add_scheme_arguments(parser)


def run(args: argparse.Namespace) -> int:
    from qvla_offline.memory import peak_memory
    from qvla_offline.sensitivity.run import compute_sensitivity

    asked = given(args, QuantizationScheme)
    if args.statistics is not None and not {"quantizer", "clip_search"} & set(asked):
        asked["quantizer"] = COMPENSATING
    scheme = QuantizationScheme(**asked)
    options = SensitivityOptions(**given(args, SensitivityOptions), scheme=scheme)
    with _workers(args) as workers:
        sensitivity, agreement = compute_sensitivity(
            args.pretrained_checkpoint,
            args.calib_jsonl,
            args.out_path,
            options,
            args.resume,
            workers,
        )
    print(f"{'layer':<64} " + " ".join(f"mean S({b})".rjust(12) for b in sensitivity.bits))
    for name, score in sensitivity.scores.items():
        idle = "  (not executed)" if name in sensitivity.not_executed else ""
        print(f"{name:<64} " + " ".join(f"{value:12.4g}" for value in score.mean(axis=1)) + idle)
    if agreement:
        print(agreement.table())
    print(f"wrote {args.out_path}; {peak_memory()}")
    return 0


@contextmanager
def _workers(args: argparse.Namespace) -> Iterator[list[Worker]]:
    """Those that the options ask for; none without --workers and --ray."""
    from qvla_offline.workers.opening import open_workers

    if args.workers is None and args.ray is None:
        yield []
        return
    with open_workers(1 if args.workers is None else args.workers, args.ray) as opened:
        yield opened
