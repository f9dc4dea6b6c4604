"""The record of finished steps: a step whose result is up to date does not run again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qvla_offline.fingerprint import value_sha256
from qvla_offline.memory import peak_memory
from qvla_ros import __version__
from qvla_ros.atomic import atomic_file


@dataclass(frozen=True)
class RecipeStep:
    """One result of a recipe, and how to make it.

    target: the file or folder that the step makes. inputs(): what the result depends on, as JSON
    holds it; called when it is the step's turn, so results of earlier steps may be part of it.
    make(target, resume): resume is true when an earlier run began with equal inputs and did not
    finish.
    """

    name: str
    target: Path
    inputs: Callable[[], list[Any]]
    make: Callable[[Path, bool], object]


class Steps:
    """Runs steps, and knows which results in a directory are up to date.

    steps.json holds {step: {inputs: hash, seconds: wall time}}.
    """

    def __init__(self, directory: Path) -> None:
        self.file = directory / "steps.json"
        self.done: dict[str, Any] = {}
        if self.file.is_file():
            try:
                self.done = json.loads(self.file.read_text())
            except ValueError:
                print(f"{self.file} is broken; every step runs again")

    def run(self, step: RecipeStep) -> None:
        """Makes the step's target unless it is there and was made from equal inputs."""
        fingerprint = value_sha256([__version__, step.inputs()])
        entry = self.done.get(step.name, {})
        begun = entry.get("inputs") == fingerprint
        if begun and "seconds" in entry and step.target.exists():
            print(f"{step.name}: up to date ({step.target})")
            return
        print(f"{step.name}: {step.target}")
        self._note(step.name, {"inputs": fingerprint})
        start = time.monotonic()
        step.make(step.target, begun and "seconds" not in entry)
        print(f"{step.name}: {peak_memory()} so far")
        seconds = round(time.monotonic() - start, 2)
        self._note(step.name, {"inputs": fingerprint, "seconds": seconds})

    def _note(self, name: str, entry: dict[str, Any]) -> None:
        self.done[name] = entry
        with atomic_file(self.file) as temporary:
            temporary.write_text(json.dumps(self.done, indent=1) + "\n")

    def seconds(self) -> dict[str, float]:
        """Returns the wall time that each step took when it last ran, s."""
        return {name: entry["seconds"] for name, entry in self.done.items() if "seconds" in entry}
