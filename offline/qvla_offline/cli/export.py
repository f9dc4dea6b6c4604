"""`qvla export`: writes the bundle that a robot runs, from a checkpoint and gates."""

from __future__ import annotations

import argparse
from dataclasses import replace

from qvla_offline.cli.options import (
    add_checkpoint_argument,
    add_gates_argument,
    add_statistics_argument,
    add_trained_scales_argument,
)
from qvla_offline.export.options import ExportOptions
from qvla_offline.option_fields import add_options, given
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_offline.sensitivity.options import SensitivityOptions

HELP = (
    "write the bundle of a checkpoint: one ONNX graph with the bit-widths of the gates, "
    "and what the robot needs"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_checkpoint_argument(parser)
    add_gates_argument(parser, required=False)
    parser.add_argument(
        "--out_dir",
        required=True,
        help="directory of the bundle; replaced if it is an earlier result",
    )
    storage = {"group_size", "two_bit_storage", "quantizer"}
    add_options(parser, QuantizationScheme, storage, default="the gates' own")
    add_statistics_argument(parser)
    add_trained_scales_argument(parser)
    add_options(parser, ExportOptions)
    parser.add_argument(
        "--task_suite_name", help="instead of --unnorm_key: the statistics of this LIBERO suite"
    )
    add_options(parser, SensitivityOptions, {"robot_path", "unnorm_key"})


def run(args: argparse.Namespace) -> int:
    from rich.console import Console

    from qvla_offline.checkpoints.statistics import key_of_suite
    from qvla_offline.export.bundle import export_bundle
    from qvla_offline.gates import read_gates
    from qvla_offline.memory import peak_memory
    from qvla_offline.robot import LIBERO, read_robot
    from qvla_ros.bundle import load_bundle
    from qvla_ros.doctor.parity import PARITY_FILE

    gates = None if args.gates_path is None else read_gates(args.gates_path)
    unnorm_key = args.unnorm_key
    if unnorm_key is None and args.task_suite_name is not None:
        unnorm_key = key_of_suite(args.pretrained_checkpoint, args.task_suite_name)
    scheme = QuantizationScheme(**(gates.scheme if gates is not None else {}))
    scheme = replace(scheme, **given(args, QuantizationScheme))
    with Console(stderr=True).status("reading the checkpoint") as status:
        path = export_bundle(
            args.pretrained_checkpoint,
            gates,
            args.out_dir,
            scheme=scheme,
            options=ExportOptions(**given(args, ExportOptions)),
            robot=LIBERO if args.robot_path is None else read_robot(args.robot_path),
            unnorm_key=unnorm_key,
            progress=lambda layer: status.update(f"writing {layer}"),
            statistics_dir=args.statistics,
            trained_scales=args.trained_scales,
        )
    sizes = load_bundle(path, verify_hashes=False).quantization
    stored_mb = sizes.weight_bytes / 1e6
    float16_mb = sizes.float16_weight_bytes / 1e6
    if args.robot_path is None:
        print(
            "robot: LIBERO's arm (cameras, units, frame and rate); --robot_path names "
            "another, see config/robots/"
        )
    print(f"wrote {path}: {stored_mb:.2f} MB of weights (float16: {float16_mb:.2f} MB)")
    if not (path / PARITY_FILE).is_file():
        print(
            "no answers for other machines to compare with: `qvla doctor --write_parity` "
            "adds them where it fits"
        )
    print(
        f"bits per weight with scales: {sizes.nominal_bits_per_weight:.2f} nominal, "
        f"{sizes.stored_bits_per_weight:.2f} stored; {peak_memory()}"
    )
    return 0
