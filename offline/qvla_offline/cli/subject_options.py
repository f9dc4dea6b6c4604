"""Options that name the policies of a comparison, for `qvla error` and `qvla compare`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

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
from qvla_ros.errors import QvlaError

if TYPE_CHECKING:
    from qvla_offline.error.subjects import Subject, Subjects
    from qvla_offline.robot import RobotDescription


def add_subject_arguments(parser: argparse.ArgumentParser) -> None:
    """The checkpoint, what was made of it, and the observations to measure on."""
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
        "--methods",
        type=_words,
        default=(),
        metavar="QUANTIZERS",
        help="quantizers for each width of --uniform, for example rtn,gptq; each is then named "
        "QUANTIZER@BITS (default: --quantizer alone)",
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
    parser.add_argument(
        "--trained_scales",
        nargs="+",
        default=[],
        metavar="[NAME=]FILE",
        help="files of `qvla train_scales`, for the gates of that NAME; without one, for the only "
        "gates",
    )
    add_options(parser, SensitivityOptions, {"max_samples"}, default="all")
    parser.add_argument("--backend", default="onnxruntime", help="engine that runs the bundles")
    add_options(parser, Budget, {"compute_dtype"})
    add_options(parser.add_argument_group("activations"), ActivationScheme)
    add_options(parser, SensitivityOptions, {"memory_gb", "device", "unnorm_key", "robot_path"})
    add_scheme_arguments(parser)


def robot_of(args: argparse.Namespace) -> RobotDescription:
    """The robot that --robot_path describes; LIBERO's arm without it."""
    from qvla_offline.robot import LIBERO, read_robot

    return LIBERO if args.robot_path is None else read_robot(args.robot_path)


def maker_of(args: argparse.Namespace) -> Subjects:
    """What makes the subjects from the checkpoint; QvlaError if the statistics are another's."""
    from qvla_offline.error.subjects import Subjects
    from qvla_offline.quantization.stored_statistics import StoredStatistics

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
    return made_by


def subjects_of(args: argparse.Namespace, made_by: Subjects) -> list[Subject]:
    """Opens all that the options name; QvlaError if that is nothing, or two have one name."""
    from qvla_offline.error.comparison import require_distinct

    named = [_named(texts) for texts in (args.gates_path, args.bundle, args.fakequant)]
    everywhere = _uniform(args, made_by)
    require_distinct(
        [name for pairs in named for name, _ in pairs] + [subject.name for subject in everywhere]
    )
    gates, bundles, fakequants = named
    trained = _trained_scales(args.trained_scales, [name for name, _ in gates])
    return [
        *everywhere,
        *(made_by.of_gates(name, path, trained.get(name)) for name, path in gates),
        *(made_by.of_fakequant(name, path) for name, path in fakequants),
        *(made_by.of_bundle(name, path) for name, path in bundles),
    ]


def _trained_scales(texts: Sequence[str], gates: Sequence[str]) -> dict[str, Path]:
    """{name of gates: the file of their scales}; QvlaError for scales of no gates."""
    found = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not equals and len(gates) == 1:
            name = gates[0]
            path = text
        if name not in gates or name in found:
            raise QvlaError(
                "trained_scales",
                text,
                f"NAME=FILE, one for each of the gates {', '.join(gates) or '(none is given)'}",
                "name the gates with --gates_path NAME=FILE, and their scales by the same NAME",
            )
        found[name] = Path(path)
    return found


def _uniform(args: argparse.Namespace, made_by: Subjects) -> list[Subject]:
    """One width everywhere: each width by the scheme's quantizer, or by each of --methods."""
    if not args.methods:
        return [made_by.of_uniform(bits) for bits in args.uniform]
    makers = {
        method: replace(made_by, scheme={**(made_by.scheme or {}), "quantizer": method})
        for method in args.methods
    }
    return [
        replace(subject, name=subject.name.replace(f"uniform {bits} bits", f"{method}@{bits}"))
        for method, maker in makers.items()
        for bits in args.uniform
        for subject in [maker.of_uniform(bits)]
    ]


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in text.split(",") if word)


def _named(texts: Sequence[str]) -> list[tuple[str, Path]]:
    """[(name, path)] of NAME=PATH, or of PATH, whose name is the path itself."""
    pairs = [text.partition("=") for text in texts]
    return [(head, Path(tail)) if equals else (head, Path(head)) for head, equals, tail in pairs]
