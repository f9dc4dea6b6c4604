"""What the workstation knows about a bundle's gates, as `qvla_offline.analysis` writes it for the
report.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qvla_ros.errors import QvlaError

Point = tuple[float, float]


@dataclass(frozen=True)
class Analysis:
    """sensitivity: bits -> summed sensitivity of each of `layers`. Points are (bits per weight with
    scales, error).

    best: the least error at each budget; uniform: bits -> every channel at that width; chosen: the
    gates at hand. unit: of sensitivity and error. cost: "stored" or "nominal", how a 2-bit weight
    is counted.
    """

    layers: tuple[str, ...]
    sensitivity: Mapping[int, tuple[float, ...]]
    best: tuple[Point, ...]
    uniform: Mapping[int, Point]
    chosen: Point
    unit: str
    cost: str


def read_analysis(path: Path) -> Analysis:
    """Read analysis.json; QvlaError when it is not one."""
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return Analysis(
            layers=tuple(content["layers"]),
            sensitivity={
                int(bits): tuple(map(float, row)) for bits, row in content["sensitivity"].items()
            },
            best=tuple((float(x), float(y)) for x, y in content["best"]),
            uniform={
                int(bits): (float(x), float(y)) for bits, (x, y) in content["uniform"].items()
            },
            chosen=(float(content["chosen"][0]), float(content["chosen"][1])),
            unit=str(content["unit"]),
            cost=str(content["cost"]),
        )
    except (OSError, KeyError, TypeError, ValueError) as error:
        fix = "make it again: python -m qvla_offline.analysis --help"
        raise QvlaError(
            str(path), repr(error), "the analysis of a sensitivity file and its gates", fix
        ) from error
