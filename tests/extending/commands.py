"""Runs the commands that standard input lists, as a shell would, in this one interpreter."""

from __future__ import annotations

import shlex
import sys
from contextlib import redirect_stdout

import pytest

from qvla_ros.cli.main import main


def run(words: list[str]) -> int:
    """The exit status of a command: of `qvla`, or of `python -m pytest`; it may end in `> FILE`."""
    if ">" in words:
        with open(words[-1], "w") as file, redirect_stdout(file):
            return run(words[: words.index(">")])
    if words[0] == "qvla":
        return main(words[1:])
    assert words[:3] == ["python", "-m", "pytest"], f"no command of these pages: {words}"
    return pytest.main(["-q", "-p", "no:cacheprovider", *words[3:]])


if __name__ == "__main__":
    sys.path[0] = ""  # as `python -m` has it
    for line in sys.stdin.read().replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        status = run(words) if words else 0
        if status != 0:
            sys.exit(f"exit status {status}: {line}")
