"""`qvla gates`: chooses one bit-width for each output channel, within a budget."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from qvla_offline.cli.options import (
    CALIBRATION_HELP,
    add_scheme_arguments,
    add_statistics_argument,
)
from qvla_offline.gates.options import Budget, GatesOptions
from qvla_offline.option_fields import add_options, given
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_ros.errors import QvlaError

if TYPE_CHECKING:
    from qvla_offline.allocation import Measuring
    from qvla_offline.sensitivity.store import Sensitivity

HELP = "choose a bit-width for every output channel, within a budget"
_SAME_INPUTS = ("max_samples", "unnorm_key", "robot_path")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--proxy_pt",
        required=True,
        type=Path,
        help="sensitivity file (.safetensors or released .pt)",
    )
    parser.add_argument("--out_json", required=True, type=Path, help="gates file to write")
    add_options(parser, GatesOptions, {"bits", "joint_rounds", "measured_samples"})
    add_options(
        parser,
        Budget,
        {"target_avg_bits", "method", "cost", "compute_dtype", "tile", "layer_bits"},
    )
    parser.add_argument(
        "--pretrained_checkpoint",
        type=Path,
        help="for --joint_rounds and --measured_samples, or to price a released .pt",
    )
    parser.add_argument(
        "--calib_jsonl",
        "--calibration",
        type=Path,
        help=f"for --joint_rounds and --measured_samples: {CALIBRATION_HELP}",
    )
    parser.add_argument(
        "--skip_bad_lines", action="store_true", help="skip unreadable lines, as when scoring"
    )
    add_statistics_argument(parser)
    add_scheme_arguments(parser)


def run(args: argparse.Namespace) -> int:
    from qvla_offline.allocation import choose_gates
    from qvla_offline.gates import write_gates
    from qvla_offline.gates.assign import describe
    from qvla_offline.gates.joint import require_joint, require_rounds
    from qvla_offline.gates.measured import require_measurable
    from qvla_offline.gates.options import scored_bits
    from qvla_offline.memory import peak_memory
    from qvla_offline.sensitivity.store import read_sensitivity
    from qvla_ros.bundle import sha256_of

    joint_rounds = args.joint_rounds or 0
    require_rounds(joint_rounds)
    sensitivity = read_sensitivity(args.proxy_pt)
    if args.pretrained_checkpoint and not sensitivity.columns:
        from qvla_offline.sensitivity.imported import completed

        sensitivity = completed(sensitivity, args.pretrained_checkpoint)
    scoring_scheme = QuantizationScheme(**sensitivity.settings.get("scheme", {}))
    scheme = replace(scoring_scheme, **given(args, QuantizationScheme))
    budget = Budget(**{"bits": scored_bits(sensitivity.bits)} | given(args, Budget))
    # before the policy is loaded
    require_joint(joint_rounds, sensitivity.method, budget)
    require_measurable(args.measured_samples or 0, budget)
    measuring = _measuring(args, sensitivity, scheme)
    if measuring is None and budget.method == "optimal" and args.measured_samples is None:
        print(
            "not measured against one width everywhere: that takes --pretrained_checkpoint and "
            "--calib_jsonl"
        )
    sources = {"sensitivity_sha256": sha256_of(args.proxy_pt)}
    gates = choose_gates(
        sensitivity, budget, scheme, sources, measuring, joint_rounds, args.measured_samples
    )
    write_gates(args.out_json, gates)
    print(describe(gates))
    print(f"wrote {args.out_json}; {peak_memory()}")
    return 0


def _measuring(
    args: argparse.Namespace, sensitivity: Sensitivity, scheme: QuantizationScheme
) -> Measuring | None:
    """Returns where gates are measured: on the policy that was scored, as it was scored.

    None if the command line asks for no measurement and does not name where. QvlaError if it names
    another policy.
    """
    asked = args.joint_rounds or args.measured_samples
    if not asked and (args.calib_jsonl is None or args.measured_samples == 0):
        return None
    for key in ("pretrained_checkpoint", "calib_jsonl"):
        if getattr(args, key) is None:
            raise QvlaError(
                key,
                "nothing",
                "a path: --joint_rounds and --measured_samples run the policy",
                f"name it with --{key}",
            )
    # these import torch
    from qvla_offline.allocation import Measuring
    from qvla_offline.fingerprint import checkpoint_sha256
    from qvla_offline.quantization.stored_statistics import statistics_for
    from qvla_offline.sensitivity.options import SensitivityOptions

    scored = sensitivity.sources.get("checkpoint_sha256")
    given = checkpoint_sha256(args.pretrained_checkpoint)
    if scored is not None and scored != given:
        found = f"{args.pretrained_checkpoint}, whose SHA-256 is {given[:16]}..."
        expected = f"the checkpoint that {args.proxy_pt} scores, {scored[:16]}..."
        raise QvlaError(
            "pretrained_checkpoint", found, expected, "name that one, or score this one first"
        )
    known = {key: sensitivity.settings[key] for key in _SAME_INPUTS if key in sensitivity.settings}
    options = SensitivityOptions(
        **known,
        scheme=scheme,
        skip_bad_lines=args.skip_bad_lines,
        statistics=args.statistics and str(args.statistics),
    )
    statistics = statistics_for(scheme, args.statistics, args.pretrained_checkpoint)
    scored_with = sensitivity.sources.get("statistics_sha256")
    if statistics is not None and scored_with not in (None, statistics.sha256):
        raise QvlaError(
            "statistics",
            f"{args.statistics}, whose SHA-256 is {statistics.sha256[:16]}...",
            f"those that {args.proxy_pt} was scored with, {scored_with[:16]}...",
            "name those with --statistics, or score with these first",
        )
    return Measuring(args.pretrained_checkpoint, args.calib_jsonl, options, args.out_json.parent)
