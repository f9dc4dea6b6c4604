"""Shows the result of a comparison as a table, and writes it as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from qvla_offline.error.comparison import MeasuredSubject
from qvla_offline.error.held_out import HeldOut
from qvla_offline.fingerprint import checkpoint_sha256
from qvla_ros.atomic import atomic_file

SCHEMA_VERSION = 1
UNIT = "squared normalised actions, summed over a chunk"
_HEADINGS = ("nominal", "stored", "error", "95 % interval", "median", "maximum")


def table(measured: Sequence[MeasuredSubject], dimensions: Sequence[str] = ()) -> str:
    """Returns one line a subject: bits per weight, mean error with interval, median and maximum.

    dimensions: names of the action dimensions, whose shares are shown below. None leaves them out.
    """
    lines = _aligned([("", *_HEADINGS), *(_row(one) for one in measured)])
    first = measured[0].error
    of = "" if first.episodes is None else f" of {first.episodes} episodes"
    lines += [f"measured on {first.observations} observations{of}; error: {UNIT}"]
    if dimensions:
        shares = [
            (one.subject.name, *(_number(value) for value in one.error.by_dimension))
            for one in measured
        ]
        lines += ["", *_aligned([("", *dimensions), *shares])]
    return "\n".join(lines)


def report(
    measured: Sequence[MeasuredSubject], checkpoint: Path, held_out: HeldOut
) -> dict[str, Any]:
    """Returns the result as one JSON object."""
    return {
        "schema_version": SCHEMA_VERSION,
        "unit": UNIT,
        "checkpoint": str(checkpoint),
        "checkpoint_sha256": checkpoint_sha256(checkpoint),
        "observations": str(held_out.path),
        "results": [
            {
                "name": one.subject.name,
                "kind": one.subject.kind,
                "bits_per_weight": dict(one.subject.bits_per_weight),
                "measured_error": asdict(one.error),
            }
            for one in measured
        ],
    }


def write_report(
    path: Path, measured: Sequence[MeasuredSubject], checkpoint: Path, held_out: HeldOut
) -> None:
    """Writes `report` to `path`, whole or not at all."""
    with atomic_file(path) as temporary:
        document = report(measured, checkpoint, held_out)
        temporary.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")


def _row(one: MeasuredSubject) -> tuple[str, ...]:
    error = one.error
    bits = [one.subject.bits_per_weight.get(cost) for cost in ("nominal", "stored")]
    return (
        one.subject.name,
        *("-" if value is None else f"{value:.3f}" for value in bits),
        _number(error.mean),
        f"{_number(error.low)} to {_number(error.high)}",
        _number(error.median),
        _number(error.maximum),
    )


def _number(value: float) -> str:
    return f"{value:.3g}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
