"""The document of a comparison: everything that its tables and figures show, as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from qvla_offline.compare.episodes import ClosedLoopResult, closed_loop_results, parse
from qvla_offline.compare.policies import ComparedPolicy, read_error
from qvla_ros.atomic import atomic_file
from qvla_ros.bundle import Bundle
from qvla_ros.errors import QvlaError

SCHEMA_VERSION = 1
FILE = "comparison.json"
EPISODES = "episodes.jsonl"


@dataclass(frozen=True)
class Comparison:
    """Policies and the results of their episodes.

    settings: what they were measured with. seed: of the episodes. results: none before there are
    episodes.
    """

    policies: Sequence[ComparedPolicy]
    settings: Mapping[str, Any]
    seed: int = 0
    results: Sequence[ClosedLoopResult] = field(default_factory=list)

    def with_bundles(self, bundles: Mapping[str, Bundle]) -> Comparison:
        """Adds what each policy's bundle is and weighs."""
        policies = [
            replace(
                policy,
                bundle_id=bundles[policy.name].bundle_id,
                weight_bytes=bundles[policy.name].quantization.weight_bytes,
            )
            for policy in self.policies
        ]
        return replace(self, policies=policies)


def with_episodes(comparison: Comparison, folder: Path) -> Comparison:
    """Adds the results of those episodes in the folder's log that these policies have run."""
    log = folder / EPISODES
    bundles = {policy.name: policy.bundle_id for policy in comparison.policies}
    lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    records = [json.loads(line) for line in lines]
    own = [
        parse(record)
        for record in records
        if record["seed"] == comparison.seed
        and bundles.get(record["policy"]) == record["bundle_id"]
    ]
    results = closed_loop_results(own, list(bundles)) if own else []
    return replace(comparison, results=results)


def write(comparison: Comparison, folder: Path) -> None:
    """Writes the document, whole or not at all."""
    document = {
        "schema_version": SCHEMA_VERSION,
        **comparison.settings,
        "seed": comparison.seed,
        "policies": [asdict(policy) for policy in comparison.policies],
        "closed_loop": [
            {**asdict(result), "mcnemar_p": result.pairing.p_value} for result in comparison.results
        ],
    }
    with atomic_file(folder / FILE) as temporary:
        temporary.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")


def read(folder: Path) -> Comparison:
    """Reads the policies of the document in `folder`, and counts the episodes in its log."""
    path = folder / FILE
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document.pop("schema_version") != SCHEMA_VERSION:
            raise ValueError("another layout")
        policies = [_policy(entry) for entry in document.pop("policies")]
        seed = document.pop("seed")
        document.pop("closed_loop")
    except (OSError, ValueError, KeyError, TypeError) as error:
        fix = "run the comparison first, without --print_only"
        raise QvlaError(str(path), repr(error), "a comparison that was begun", fix) from error
    return with_episodes(Comparison(policies, document, seed), folder)


def _policy(entry: dict[str, Any]) -> ComparedPolicy:
    error = entry.pop("error")
    return ComparedPolicy(**entry, error=None if error is None else read_error(error))
