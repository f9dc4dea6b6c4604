"""Options that several workstation verbs share."""

from __future__ import annotations

import argparse

from qvla_offline.option_fields import add_options
from qvla_offline.quantization.scheme import QuantizationScheme

CALIBRATION_HELP = (
    "a .jsonl file, a LeRobot dataset, a ROS 2 bag, or a YAML file as in config/calibration/"
)


def add_scheme_arguments(parser: argparse.ArgumentParser) -> None:
    """How rows are stored; `given(args, QuantizationScheme)` takes what the command line names."""
    add_options(parser.add_argument_group("storage scheme"), QuantizationScheme)
