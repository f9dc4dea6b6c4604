"""Shows the progress of an evaluation: all episodes, the running one, and the score so far."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class EpisodeDisplay:
    """Takes the bridge's events. A terminal gets two bars, a file or pipe a line an episode."""

    def __init__(self, episode_count: int) -> None:
        console = Console(stderr=True, highlight=False)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._lines = console
        self._total = episode_count
        self._episodes = self._progress.add_task("starting the nodes", total=episode_count)
        self._steps = self._progress.add_task("", total=None, visible=False)
        self._score: dict[str, list[bool]] = {}

    def __enter__(self) -> EpisodeDisplay:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Shows one event of the bridge; unknown ones are ignored."""
        kind = event["event"]
        if kind == "episode_start":
            description = f"{_runner(event)}: {event['instruction']}"
            self._progress.reset(
                self._steps, description=description, total=event["max_steps"], visible=True
            )
        elif kind == "step":
            self._progress.update(self._steps, completed=event["step"])
        elif kind == "episode":
            self._score.setdefault(_runner(event), []).append(bool(event["success"]))
            self._progress.update(self._episodes, advance=1, description=self._standings())
            if self._progress.disable:
                self._lines.print(self._line(event), soft_wrap=True)

    def _standings(self) -> str:
        return "  ".join(
            f"{name} {sum(solved)}/{len(solved)}" for name, solved in self._score.items()
        )

    def _line(self, event: Mapping[str, Any]) -> str:
        done = sum(map(len, self._score.values()))
        outcome = "solved" if event["success"] else "failed"
        return (
            f"[{done}/{self._total}] {_runner(event)}: {event['instruction']} (state "
            f"{event['init_state']}): "
            f"{outcome} in {event['steps']} steps, {event['duration_s']:.1f} s"
        )


def _runner(event: Mapping[str, Any]) -> str:
    """The policy's name, and in real time the conditions under which it runs."""
    return " ".join(filter(None, (event["policy"], event.get("label"))))
