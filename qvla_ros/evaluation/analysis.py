"""Reads analysis.json: the sensitivity and the gates of a bundle, which the workstation writes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qvla_ros.errors import QvlaError

Point = tuple[float, float]


@dataclass(frozen=True)
class MeasuredError:
    """Measured error of the actions of one policy, on observations that no step has read.

    bits_per_weight: with scales, counted as Analysis.cost says. low, high: the 95 % interval.
    """

    name: str
    bits_per_weight: float
    error: float
    low: float
    high: float


@dataclass(frozen=True)
class Analysis:
    """Sensitivity by layer, and the predicted and measured errors of several gates.

    sensitivity: bits -> summed sensitivity of each of `layers`. Points are (bits per weight with
    scales, predicted error); the prediction is the sum of the sensitivities. best: the least at
    each budget. uniform: bits -> every channel at that width. chosen: the bundle's gates. unit: of
    sensitivity and error. cost: "stored" or "nominal", how a 2-bit weight is counted. measured:
    empty if nothing was measured. observations: how many were measured on.
    """

    layers: tuple[str, ...]
    sensitivity: Mapping[int, tuple[float, ...]]
    best: tuple[Point, ...]
    uniform: Mapping[int, Point]
    chosen: Point
    unit: str
    cost: str
    measured: tuple[MeasuredError, ...] = ()
    observations: int = 0


def read_analysis(path: Path) -> Analysis:
    """Reads the file at `path`; QvlaError if it is no such analysis."""
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
            measured=tuple(MeasuredError(**one) for one in content.get("measured", ())),
            observations=int(content.get("observations", 0)),
        )
    except (OSError, KeyError, TypeError, ValueError) as error:
        fix = "make it again: python -m qvla_offline.analysis --help"
        raise QvlaError(
            str(path), repr(error), "the analysis of a sensitivity file and its gates", fix
        ) from error
