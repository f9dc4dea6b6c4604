"""The HTML report of an evaluation: one file with its figures inside, videos beside it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from qvla_ros.atomic import atomic_file
from qvla_ros.bundle import Bundle
from qvla_ros.evaluation import plots
from qvla_ros.evaluation.analysis import Analysis
from qvla_ros.evaluation.episodes import EpisodeRecord
from qvla_ros.evaluation.table import HEADERS, pairing_lines, table_rows
from qvla_ros.evaluation.versions import versions


@dataclass(frozen=True)
class Figure:
    """One drawing of the report with its heading and a sentence that explains it."""

    title: str
    text: str
    svg: str


def write_report(
    path: Path,
    title: str,
    lead: str,
    episodes: Sequence[EpisodeRecord],
    bundles: Mapping[str, Bundle],
    analysis: Analysis | None,
    command: str,
) -> None:
    """Writes the report to `path`.

    Figures about gates show the last bundle that has a mix of bit-widths; without one they are left
    out, as those about sensitivity are without `analysis`. command: prints the same numbers again.
    """
    policies = list(bundles)
    environment = Environment(
        loader=PackageLoader("qvla_ros.evaluation", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    rows = table_rows(episodes, bundles)
    html = environment.get_template("report.html.j2").render(
        title=title,
        lead=lead,
        headers=HEADERS,
        rows=list(zip(rows, plots.policy_colours(policies), strict=True)),
        pairs=pairing_lines(episodes, policies),
        videos=_videos(episodes, policies, path.parent),
        figures=_figures(episodes, policies, _mixed_gates(bundles), analysis),
        command=command,
        versions=versions(),
    )
    with atomic_file(path) as temporary:
        temporary.write_text(html, encoding="utf-8")


def _figures(
    episodes: Sequence[EpisodeRecord],
    policies: Sequence[str],
    gates: Mapping[str, Sequence[int]],
    analysis: Analysis | None,
) -> list[list[Figure]]:
    """The rows of the report: one wide figure or two narrow ones each."""
    instructions = {episode.task_id: episode.instruction for episode in episodes}
    latency = Figure(
        "Inference time",
        "Time in the engine for each action chunk; dashed lines are medians.",
        plots.latency_histogram(episodes, policies),
    )
    success = Figure(
        "Success by task",
        "Solved episodes of each task, with 95 % Wilson intervals: few episodes leave wide ones.",
        plots.success_by_task(episodes, policies, dict(sorted(instructions.items()))),
    )
    rows = [[success]]
    if analysis is None:
        rows.append([latency])
    else:
        budget = Figure(
            "Error of the actions against size",
            _measured_on(analysis),
            plots.error_versus_bits(analysis),
        )
        rows.append([latency, budget])
    if gates:
        text = (
            "Share of each layer's output channels at each bit-width. Channels at 0 bits "
            "are not computed at all. "
            "Layers that the policy never runs keep 16 bits."
        )
        rows.append([Figure("Bits by layer", text, plots.bits_per_layer(gates))])
    if analysis is not None:
        text = (
            "The predicted change of the actions if a whole layer were quantized; the gates "
            "spend bits where this is high."
        )
        rows.append([Figure("Sensitivity by layer", text, plots.sensitivity_per_layer(analysis))])
    return rows


def _measured_on(analysis: Analysis) -> str:
    predicted = (
        "Dotted and thin: predictions, sums of the sensitivities of single channels, which are too "
        "small because errors add up across layers."
    )
    if not analysis.measured:
        return f"Nothing was measured (`qvla error` does). {predicted}"
    return (
        f"Squared difference to the float policy's normalised actions over a chunk, measured on "
        f"{analysis.observations} observations that no step has read, with 95 % intervals. "
        f"{predicted}"
    )


def _mixed_gates(bundles: Mapping[str, Bundle]) -> dict[str, list[int]]:
    """Layer -> bits of each output channel, of the last bundle with more than one bit-width.

    Empty if there is none.
    """
    for bundle in reversed(list(bundles.values())):
        file = bundle.directory / "gates.json"
        if not file.is_file():
            continue
        layers: dict[str, list[int]] = json.loads(file.read_text(encoding="utf-8"))["layers"]
        if len({bits for row in layers.values() for bits in row}) > 1:
            return layers
    return {}


def _videos(
    episodes: Sequence[EpisodeRecord], policies: Sequence[str], base: Path
) -> list[dict[str, str]]:
    """The first recorded episode of each policy, its path relative to the report."""
    videos = []
    for name in policies:
        episode = next(
            (e for e in episodes if e.policy == name and e.video and Path(e.video).is_file()), None
        )
        if episode is not None and episode.video is not None:
            outcome = "solved" if episode.success else "not solved"
            caption = (
                f"{episode.instruction}, initial state {episode.init_state}: "
                f"{outcome} in {episode.steps} steps"
            )
            path = os.path.relpath(episode.video, base)
            videos.append({"policy": name, "caption": caption, "path": path})
    return videos
