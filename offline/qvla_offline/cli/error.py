"""`qvla error`: measures how far a quantized policy's actions are from the float policy's."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from qvla_offline.activations.options import ActivationScheme
from qvla_offline.cli.options import (
    CALIBRATION_HELP,
    add_checkpoint_argument,
    add_scheme_arguments,
    add_statistics_argument,
)
from qvla_offline.gates.options import Budget
from qvla_offline.option_fields import add_options, given, integers
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_offline.sensitivity.options import SensitivityOptions

HELP = (
    "measure the action error of gates, bundles and fake-quantized checkpoints on "
    "observations that no step has read"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_checkpoint_argument(parser)
    parser.add_argument(
        "--observations", required=True, type=Path, help=f"held out: {CALIBRATION_HELP}"
    )
    parser.add_argument(
        "--gates_path",
        nargs="+",
        default=[],
        metavar="[NAME=]FILE",
        help="gates files; the checkpoint is fake-quantized in memory",
    )
    parser.add_argument(
        "--uniform",
        type=integers,
        default=(),
        metavar="BITS",
        help="the same bits everywhere, as baselines, for example 2,4,8",
    )
    parser.add_argument(
        "--bundle", nargs="+", default=[], metavar="[NAME=]DIR", help="bundles, run by --backend"
    )
    parser.add_argument(
        "--fakequant",
        nargs="+",
        default=[],
        metavar="[NAME=]DIR",
        help="fake-quantized checkpoints",
    )
    parser.add_argument(
        "--calibration",
        nargs="+",
        type=Path,
        default=[],
        help="what the quantization has read; observations in it are refused (default: "
        "calibration.jsonl in the checkpoint's directory, if it is there)",
    )
    add_statistics_argument(parser)
    add_options(parser, SensitivityOptions, {"max_samples"}, default="all")
    parser.add_argument(
        "--by_dimension", action="store_true", help="print the error of each action dimension too"
    )
    parser.add_argument("--out_json", type=Path, help="write the result there as well")
    parser.add_argument("--backend", default="onnxruntime", help="engine that runs the bundles")
    add_options(parser, Budget, {"compute_dtype"})
    add_options(parser.add_argument_group("activations"), ActivationScheme)
    add_options(parser, SensitivityOptions, {"memory_gb", "device", "unnorm_key", "robot_path"})
    add_scheme_arguments(parser)


def run(args: argparse.Namespace) -> int:
    from qvla_offline.error.comparison import compare, require_distinct, require_held_out
    from qvla_offline.error.held_out import read_held_out
    from qvla_offline.error.report import table, write_report
    from qvla_offline.error.subjects import Subjects
    from qvla_offline.quantization.stored_statistics import StoredStatistics
    from qvla_offline.robot import LIBERO, read_robot
    from qvla_offline.sensitivity.run import suit_threads

    robot = LIBERO if args.robot_path is None else read_robot(args.robot_path)
    options = SensitivityOptions(**given(args, SensitivityOptions))
    made_by = Subjects(
        args.pretrained_checkpoint,
        args.unnorm_key,
        given(args, QuantizationScheme),
        None if args.statistics is None else StoredStatistics(args.statistics),
        Budget(**given(args, Budget)).compute_dtype,
        args.backend,
        options.memory_gb * 1e9,
        options.device,
        ActivationScheme(**given(args, ActivationScheme)),
    )
    if made_by.statistics is not None:
        key = f"statistics {args.statistics}"
        made_by.require_same_checkpoint(key, made_by.statistics.sources)
    named = [_named(texts) for texts in (args.gates_path, args.bundle, args.fakequant)]
    require_distinct(
        [name for pairs in named for name, _ in pairs] + [str(b) for b in args.uniform]
    )
    gates, bundles, fakequants = named
    subjects = [
        *(made_by.of_uniform(bits) for bits in args.uniform),
        *(made_by.of_gates(name, path) for name, path in gates),
        *(made_by.of_fakequant(name, path) for name, path in fakequants),
        *(made_by.of_bundle(name, path) for name, path in bundles),
    ]
    checkpoint = made_by.open()
    suit_threads(checkpoint.model)
    held_out = read_held_out(args.observations, checkpoint, args.max_samples, robot)
    require_held_out(held_out, subjects, made_by, args.calibration, robot)
    measured = compare(subjects, made_by, held_out)
    print(table(measured, robot.actions.names if args.by_dimension else ()))
    if args.out_json:
        write_report(args.out_json, measured, args.pretrained_checkpoint, held_out)
        print(f"wrote {args.out_json}")
    return 0


def _named(texts: Sequence[str]) -> list[tuple[str, Path]]:
    """[(name, path)] of NAME=PATH, or of PATH, whose name is the path itself."""
    pairs = [text.partition("=") for text in texts]
    return [(head, Path(tail)) if equals else (head, Path(head)) for head, equals, tail in pairs]
