"""Reads a page of docs/how_to as instructions: files to write, lines to change, commands to run.

Fences say which is which. ```python title=PATH is a new file, ```diff title=PATH a change of a file
that is there, ```bash a list of commands. Other fences are only shown.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "how_to"
# What the commands of a page read or change. The rest of a checkout is only linked.
COPIED = ("qvla_ros", "offline", "tests", "config", "launch", "docs", "pyproject.toml")
LINKED = ("reference_policy", "package.xml", "README.md")
_FENCE = re.compile(r"^```(\w+)(?: title=(\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One fenced block. title: the path, below the checkout, of the file that it is about."""

    language: str
    title: str
    text: str


@dataclass(frozen=True)
class Page:
    """All fenced blocks of a page, in order."""

    name: str
    blocks: tuple[Block, ...]

    @property
    def sources(self) -> list[Block]:
        """The files that it adds to the program; tests are not counted."""
        return [block for block in self.files if not block.title.startswith("tests/")]

    @property
    def files(self) -> list[Block]:
        return [block for block in self.blocks if block.title and block.language != "diff"]

    @property
    def registrations(self) -> list[Block]:
        """The changes of files that are there."""
        return [block for block in self.blocks if block.title and block.language == "diff"]

    @property
    def commands(self) -> str:
        return "\n".join(block.text for block in self.blocks if block.language == "bash")

    def apply(self, checkout: Path) -> None:
        """Writes the page's files and makes its changes, as a reader would."""
        for block in self.files:
            file = checkout / block.title
            assert not file.exists(), f"{self.name}: {block.title} is there already"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text)
        for block in self.registrations:
            file = checkout / block.title
            file.write_text(changed(file.read_text(), block))

    def follow(self, checkout: Path) -> str:
        """Does all that the page says in `checkout`; what its commands print."""
        self.apply(checkout)
        return run_commands(self.commands, checkout)


def read_page(name: str) -> Page:
    """The page docs/how_to/NAME.md."""
    text = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    return Page(name, tuple(Block(*found) for found in _FENCE.findall(text)))


def changed(text: str, change: Block) -> str:
    """`text` with a change as `diff -u` shows one; the lines around it must be there, once.

    A line `@@` stands for what lies between two places of the file.
    """
    for place in change.text.split("@@\n"):
        lines = [line or " " for line in place.splitlines()]
        before = "".join(f"{line[1:]}\n" for line in lines if line[0] != "+")
        after = "".join(f"{line[1:]}\n" for line in lines if line[0] != "-")
        assert text.count(before) == 1, f"{change.title} does not hold, once:\n{before}"
        text = text.replace(before, after)
    return text


def run_commands(commands: str, checkout: Path) -> str:
    """Runs a page's commands in `checkout`, with its packages; fails as soon as one fails.

    All run in one interpreter of their own: torch takes seconds to import.
    """
    runner = Path(__file__).with_name("commands.py")
    done = subprocess.run(
        [sys.executable, runner],
        input=commands,
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": python_path(checkout)},
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def python_path(checkout: Path) -> str:
    """The value of PYTHONPATH with which Python finds the packages of `checkout`."""
    return os.pathsep.join([str(checkout), str(checkout / "offline")])


def enter(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets processes that the test starts run the program of `checkout`."""
    monkeypatch.chdir(checkout)  # `python -m` looks there first
    monkeypatch.setenv("PYTHONPATH", python_path(checkout))
