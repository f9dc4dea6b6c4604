"""Options that several workstation verbs share."""

from __future__ import annotations

import argparse
from pathlib import Path

from qvla_offline.option_fields import add_options
from qvla_offline.quantization.scheme import QuantizationScheme

CALIBRATION_HELP = (
    "a .jsonl file, a LeRobot dataset, a ROS 2 bag, or a YAML file as in config/calibration/"
)


def add_checkpoint_argument(parser: argparse.ArgumentParser) -> None:
    """The float checkpoint that a step reads."""
    parser.add_argument(
        "--pretrained_checkpoint",
        required=True,
        type=Path,
        help="directory of a checkpoint of any supported family",
    )


def add_calibration_argument(parser: argparse.ArgumentParser) -> None:
    """The calibration samples, under the name of the released scripts too."""
    parser.add_argument(
        "--calib_jsonl", "--calibration", required=True, type=Path, help=CALIBRATION_HELP
    )


def add_gates_argument(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """The file of gates; without one all weights stay float16."""
    absent = "" if required else " (default: float16 everywhere)"
    parser.add_argument(
        "--gates_path",
        required=required,
        type=Path,
        help=f"gates.json, or a released .json or .pt{absent}",
    )


def add_statistics_argument(parser: argparse.ArgumentParser) -> None:
    """The directory that compensating quantizers read."""
    parser.add_argument(
        "--statistics",
        type=Path,
        help="directory of `qvla statistics`, for quantizers that need it",
    )


def add_trained_scales_argument(parser: argparse.ArgumentParser) -> None:
    """The file that takes the place of the quantizer's scales and biases."""
    parser.add_argument(
        "--trained_scales",
        type=Path,
        help="file of `qvla train_scales`, made with these gates (default: the quantizer's scales)",
    )


def add_worker_arguments(
    parser: argparse.ArgumentParser, default: int | None, help_text: str
) -> None:
    """How many processes share the work, and where they are."""
    parser.add_argument("--workers", type=int, default=default, metavar="N", help=help_text)
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="run the workers on a Ray cluster: auto, local, or its address (default: as "
        "processes of this machine)",
    )


def add_scheme_arguments(parser: argparse.ArgumentParser) -> None:
    """How rows are stored; `given(args, QuantizationScheme)` takes what the command line names."""
    add_options(parser.add_argument_group("storage scheme"), QuantizationScheme)
