"""The table at the end of an evaluation: one row a policy, and one line a pair."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

from rich.console import Console
from rich.table import Table

from qvla_ros.bundle import Bundle
from qvla_ros.evaluation.episodes import EpisodeRecord, Pairing, Summary, pair, summarize

HEADERS = (
    "policy",
    "success",
    "95 % interval",
    "weights MB",
    "bits/weight nominal / stored",
    "inference ms p50 / p99",
    "stamp to command ms p50 / p99",
    "jerk m/s³",
)


def table_rows(
    episodes: Sequence[EpisodeRecord], bundles: Mapping[str, Bundle]
) -> list[tuple[str, ...]]:
    """One row of text a bundle, in the order of HEADERS. MB are 10^6 bytes; bits include scales."""
    return [_row(summarize(episodes, name), bundle) for name, bundle in bundles.items()]


def pairing_lines(episodes: Sequence[EpisodeRecord], names: Sequence[str]) -> list[str]:
    """One sentence a pair of policies."""
    return [pairing_line(pair(episodes, first, second)) for first, second in combinations(names, 2)]


def pairing_line(pairing: Pairing) -> str:
    return (
        f"{pairing.pairs} paired episodes: both solved {pairing.both}, only "
        f"{pairing.first} {pairing.only_first}, "
        f"only {pairing.second} {pairing.only_second}, neither {pairing.neither} "
        f"(exact McNemar p = {pairing.p_value:.2g})"
    )


def print_table(episodes: Sequence[EpisodeRecord], bundles: Mapping[str, Bundle]) -> None:
    """Prints the table and the pairings; a pipe gets their full width."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 120
    table = Table(header_style="bold")
    for header in HEADERS:
        table.add_column(header, justify="left" if header == "policy" else "right")
    for row in table_rows(episodes, bundles):
        table.add_row(*row)
    console.print(table)
    for line in pairing_lines(episodes, list(bundles)):
        console.print(line, soft_wrap=True)


def _row(summary: Summary, bundle: Bundle) -> tuple[str, ...]:
    low, high = summary.interval
    weights = bundle.quantization
    return (
        summary.policy,
        f"{summary.successes}/{summary.trials}",
        f"{100 * low:.0f}–{100 * high:.0f} %",
        f"{weights.weight_bytes / 1e6:.2f}",
        f"{weights.nominal_bits_per_weight:.2f} / {weights.stored_bits_per_weight:.2f}",
        _milliseconds(summary.inference_ms),
        _milliseconds(summary.stamp_to_command_ms),
        "–" if math.isnan(summary.jerk_m_s3) else f"{summary.jerk_m_s3:.2f}",
    )


def _milliseconds(values: tuple[float, float]) -> str:
    return "–" if math.isnan(values[0]) else f"{values[0]:.1f} / {values[1]:.1f}"
