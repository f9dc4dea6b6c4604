"""Options that several workstation verbs share."""

from __future__ import annotations

import argparse
from typing import Any

from qvla_ros.errors import QvlaError

CALIBRATION_HELP = (
    "a .jsonl file, a LeRobot dataset, a ROS 2 bag, or a YAML file as in config/calibration/"
)


_SCHEME = ("group_size", "scale_dtype", "two_bit_storage", "quantizer")


def add_scheme_arguments(parser: argparse.ArgumentParser) -> None:
    """How rows are stored; the defaults are those of QuantizationScheme."""
    group = parser.add_argument_group("storage scheme")
    group.add_argument(
        "--group_size", type=int, help="inputs that share a scale at 2 and 4 bits (default: 64)"
    )
    group.add_argument(
        "--no_clip_search", action="store_true", help="scale to the largest weight, clip none"
    )
    group.add_argument("--scale_dtype", help="float16 (default) or float32")
    group.add_argument("--quantizer", help="clip_search (default), rtn or released")
    group.add_argument("--two_bit_storage", help="int4 (default: every engine reads it) or int2")


def scheme_overrides(args: argparse.Namespace) -> dict[str, Any]:
    """The scheme's fields that the command line names."""
    named = {key: getattr(args, key) for key in _SCHEME}
    found = {key: value for key, value in named.items() if value is not None}
    return found | ({"clip_search": False} if args.no_clip_search else {})


def bit_list(text: str) -> tuple[int, ...]:
    """'0,2,4,8' as (0, 2, 4, 8)."""
    try:
        return tuple(int(part) for part in text.replace(" ", "").split(",") if part)
    except ValueError:
        raise QvlaError(
            "bits", text, "numbers with commas between them", "write e.g. --bits 0,2,4,8"
        ) from None
