"""`qvla gates`: chooses one bit-width for each output channel, within a budget."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from qvla_offline.cli.options import CALIBRATION_HELP, add_scheme_arguments
from qvla_offline.gates.options import Budget, GatesOptions
from qvla_offline.option_fields import add_options, given
from qvla_offline.quantization.scheme import BIT_WIDTHS, QuantizationScheme
from qvla_ros.errors import QvlaError

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
    add_options(parser, Budget, {"bits"}, default="what the file scores, and 16")
    add_options(parser, Budget, {"target_avg_bits", "method", "cost", "compute_dtype", "tile"})
    add_options(parser, GatesOptions, {"joint_rounds"})
    parser.add_argument(
        "--pretrained_checkpoint", type=Path, help="for --joint_rounds, or to price a released .pt"
    )
    parser.add_argument(
        "--calib_jsonl", "--calibration", type=Path, help=f"for --joint_rounds: {CALIBRATION_HELP}"
    )
    parser.add_argument(
        "--skip_bad_lines", action="store_true", help="of a .jsonl file, as for the sensitivities"
    )
    add_scheme_arguments(parser)


def run(args: argparse.Namespace) -> int:
    from qvla_offline.gates import write_gates
    from qvla_offline.gates.assign import assign_gates, describe
    from qvla_offline.gates.joint import assign_jointly, require_joint, require_rounds
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
    scored = tuple(b for b in BIT_WIDTHS if b == 16 or b in sensitivity.bits)
    budget = Budget(**{"bits": scored} | given(args, Budget))
    require_joint(joint_rounds, sensitivity.method, budget)  # before the policy is loaded
    sources = {"sensitivity_sha256": sha256_of(args.proxy_pt)}
    if joint_rounds:
        measure = _measure(args, sensitivity, scheme)
        gates = assign_jointly(sensitivity, budget, scheme, measure, joint_rounds, sources)
    else:
        gates = assign_gates(sensitivity, budget, scheme, sources)
    write_gates(args.out_json, gates)
    print(describe(gates))
    print(f"wrote {args.out_json}; {peak_memory()}")
    return 0


def _measure(args: argparse.Namespace, sensitivity: Any, scheme: Any) -> Any:
    from qvla_offline.fingerprint import checkpoint_sha256
    from qvla_offline.sensitivity.options import SensitivityOptions
    from qvla_offline.sensitivity.run import joint_measure

    for key in ("pretrained_checkpoint", "calib_jsonl"):
        if getattr(args, key) is None:
            raise QvlaError(
                key, "nothing", "a path: --joint_rounds runs the policy", f"name it with --{key}"
            )
    scored = sensitivity.sources.get("checkpoint_sha256")
    given = checkpoint_sha256(args.pretrained_checkpoint)
    if scored is not None and scored != given:
        found = f"{args.pretrained_checkpoint}, whose SHA-256 is {given[:16]}..."
        expected = f"the checkpoint that {args.proxy_pt} scores, {scored[:16]}..."
        raise QvlaError(
            "pretrained_checkpoint", found, expected, "name that one, or score this one first"
        )
    known = {key: sensitivity.settings[key] for key in _SAME_INPUTS if key in sensitivity.settings}
    options = SensitivityOptions(**known, scheme=scheme, skip_bad_lines=args.skip_bad_lines)
    return joint_measure(
        args.pretrained_checkpoint, args.calib_jsonl, options, args.out_json.parent
    )
