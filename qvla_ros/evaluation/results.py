"""Writes results.json: the episodes of an evaluation, and the versions that it ran with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from qvla_ros.atomic import atomic_file
from qvla_ros.bundle import Bundle
from qvla_ros.evaluation.episodes import EpisodeRecord
from qvla_ros.evaluation.runner import EvaluationPlan
from qvla_ros.evaluation.table import HEADERS, pairing_lines, table_rows
from qvla_ros.evaluation.versions import versions

SCHEMA_VERSION = 1


def write_results(
    path: Path,
    plan: EvaluationPlan,
    bundles: Mapping[str, Bundle],
    episodes: Sequence[EpisodeRecord],
) -> None:
    """Writes the plan, the bundles' identities, the table, the episodes and the versions."""
    document = {
        "schema_version": SCHEMA_VERSION,
        "plan": {
            **asdict(plan),
            "bundles": {name: str(directory) for name, directory in plan.bundles.items()},
        },
        "bundles": {
            name: {"bundle_id": bundle.bundle_id, "quantization": asdict(bundle.quantization)}
            for name, bundle in bundles.items()
        },
        "table": [dict(zip(HEADERS, row, strict=True)) for row in table_rows(episodes, bundles)],
        "pairs": pairing_lines(episodes, list(bundles)),
        "episodes": [asdict(episode) for episode in episodes],
        "versions": versions(),
    }
    with atomic_file(path) as temporary:
        temporary.write_text(
            json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8"
        )
