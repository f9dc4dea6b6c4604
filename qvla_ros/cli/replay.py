"""`qvla replay`: run a policy again on a bag, and compare with the chunks that were recorded.

Sends nothing.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qvla_ros.engines import BACKENDS, backend_help, engine_options
from qvla_ros.recording.replay import ReplayedAnswer, Unmatched, difference

HELP = "run a policy again on a bag and compare with the chunks in it; exit status 1 if they differ"
REASONS_SHOWN = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "bag",
        type=Path,
        help="directory, .mcap or .db3; or a YAML file about one, for other topics",
    )
    parser.add_argument("--bundle", type=Path, required=True, help="directory of the policy bundle")
    parser.add_argument("--backend", default="onnxruntime", choices=BACKENDS, help=backend_help())
    parser.add_argument(
        "--engine_options", type=engine_options, default={}, help="JSON, e.g. '{\"threads\": 2}'"
    )
    parser.add_argument(
        "--chunk_topic", help="whose chunks to compare with (default: the only ones in the bag)"
    )
    parser.add_argument(
        "--instruction", help="for a bag without chunks and without an instruction topic"
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=1e-6,
        help="largest difference that is none, in each action's own units",
    )
    parser.add_argument("--max_chunks", type=int, help="stop after so many (default: all)")
    parser.add_argument(
        "--json", action="store_true", help="print everything as JSON, each action included"
    )


@dataclass(frozen=True)
class ReplayOutcome:
    """All that a replay found, to be printed as text or JSON."""

    bag: Path
    bundle_id: str
    engine: str
    columns: tuple[tuple[str, str], ...]
    chunk_topic: str | None
    recorded_by: tuple[str, ...]
    answers: list[ReplayedAnswer]
    unmatched: list[Unmatched]
    tolerance: float

    @property
    def failure(self) -> str:
        """Why the replay does not confirm the recording, or empty."""
        apart = difference(self.answers)
        if apart is not None and not apart.largest.max() <= self.tolerance:
            return (
                f"actions differ by up to {apart.largest.max():.3g}, tolerance {self.tolerance:g}"
            )
        return (
            "no recorded chunk could be computed again"
            if self.chunk_topic and not self.answers
            else ""
        )


def run(args: argparse.Namespace) -> int:
    outcome = replay(args)
    if args.json:
        print(json.dumps(as_json(outcome), indent=1))
    else:
        for label, text in describe(outcome):
            print(f"{label:<12}{text}")
    return 1 if outcome.failure else 0


def replay(args: argparse.Namespace) -> ReplayOutcome:
    """Read, run and compare as the options say."""
    from dataclasses import replace

    from qvla_ros.policy import load_policy
    from qvla_ros.progress import track
    from qvla_ros.recording.bag import open_bag
    from qvla_ros.recording.replay import answers, find_chunk_topic, plan_replay, read_chunks
    from qvla_ros.recording.source import find_bag

    path, source = find_bag(args.bag)
    if args.instruction:
        source = replace(source, instruction=args.instruction)
    policy = load_policy(args.bundle, args.backend, **args.engine_options)
    try:
        with open_bag(path) as bag:
            topic = find_chunk_topic(bag.types, args.chunk_topic)
            chunks = None if topic is None else read_chunks(bag, topic)
            plan = plan_replay(bag, source, policy.bundle, chunks)
            del plan.runs[len(plan.runs) if args.max_chunks is None else args.max_chunks :]
            found = list(
                track(answers(bag, source, policy, plan), "running the policy", len(plan.runs))
            )
    finally:
        policy.close()
    actions = policy.bundle.actions
    return ReplayOutcome(
        bag=path,
        bundle_id=policy.bundle.bundle_id,
        engine=policy.engine.name,
        columns=tuple(zip(actions.names, actions.units, strict=True)),
        chunk_topic=topic,
        recorded_by=tuple(sorted({chunk.bundle_id for chunk in chunks or []})),
        answers=found,
        unmatched=plan.unmatched,
        tolerance=args.tolerance,
    )


def describe(outcome: ReplayOutcome) -> Iterator[tuple[str, str]]:
    """Lines of (label, text); the label is empty where a line continues the one above."""
    yield "policy", f"{outcome.bundle_id} on {outcome.engine}"
    if outcome.chunk_topic is None:
        yield "bag", f"{outcome.bag}: no chunks in it, nothing to compare with"
        for answer in outcome.answers:
            first = " ".join(f"{value:.4f}" for value in answer.actions[0])
            yield (
                f"{answer.stamp_ns * 1e-9:.3f}",
                f"{sum(answer.latency_ms.values()):7.1f} ms  first action {first}",
            )
    else:
        count = len(outcome.answers) + len(outcome.unmatched)
        yield "bag", f"{outcome.bag}: {count} chunks on {outcome.chunk_topic}"
        others = [bundle_id for bundle_id in outcome.recorded_by if bundle_id != outcome.bundle_id]
        if others:
            yield "", f"recorded with another bundle: {', '.join(others)}"
        yield "computed", f"{len(outcome.answers)} again, {len(outcome.unmatched)} cannot be"
        for reason, times in Counter(item.reason for item in outcome.unmatched).most_common(
            REASONS_SHOWN
        ):
            yield "", reason if times == 1 else f"{reason} ({times} chunks)"
        yield from _difference_lines(outcome)
    yield from _latency_lines(outcome.answers)
    if outcome.chunk_topic is not None:
        yield "result", outcome.failure or f"the same, within {outcome.tolerance:g}"


def as_json(outcome: ReplayOutcome) -> dict[str, Any]:
    """The same with every number."""
    apart = difference(outcome.answers)
    return {
        "bag": str(outcome.bag),
        "bundle_id": outcome.bundle_id,
        "engine": outcome.engine,
        "chunk_topic": outcome.chunk_topic,
        "recorded_bundle_ids": outcome.recorded_by,
        "matched": len(outcome.answers) if outcome.chunk_topic else 0,
        "unmatched": [
            {"stamp_ns": item.stamp_ns, "reason": item.reason} for item in outcome.unmatched
        ],
        "difference": None
        if apart is None
        else {
            name: {"unit": unit, "max": float(apart.largest[i]), "mean": float(apart.mean[i])}
            for i, (name, unit) in enumerate(outcome.columns)
        },
        "tolerance": outcome.tolerance,
        "failure": outcome.failure or None,
        "answers": [
            {
                "stamp_ns": a.stamp_ns,
                "latency_ms": dict(a.latency_ms),
                "actions": a.actions.tolist(),
            }
            for a in outcome.answers
        ],
    }


def _difference_lines(outcome: ReplayOutcome) -> Iterator[tuple[str, str]]:
    apart = difference(outcome.answers)
    if apart is None:
        return
    yield "differences", f"{'':<24}{'largest':>12}{'mean':>12}"
    for index, (name, unit) in enumerate(outcome.columns):
        yield "", f"{name:<24}{apart.largest[index]:12.3g}{apart.mean[index]:12.3g} {unit}"


def _latency_lines(found: list[ReplayedAnswer]) -> Iterator[tuple[str, str]]:
    from qvla_ros.statistics import percentiles

    label = "inference"
    then = [answer.recorded.latency_ms for answer in found if answer.recorded is not None]
    for where, stages in (("here", [answer.latency_ms for answer in found]), ("as recorded", then)):
        times = [stage["inference"] for stage in stages if "inference" in stage]
        if times:
            middle, high = percentiles(times)
            yield label, f"p50 {middle:.1f} ms, p99 {high:.1f} ms {where}"
            label = ""
