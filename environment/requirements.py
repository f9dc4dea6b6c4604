"""Prints the requirements of pyproject.toml, for pip to install without building the project.

    python environment/requirements.py build offline libero test > needed.txt
    pip install --constraint environment/constraints.txt --requirement needed.txt

`build` stands for the build system's own; every other word is an extra. The robot's dependencies
always come along.
"""

from __future__ import annotations

import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    from pip._vendor import tomli as tomllib


def requirements(groups: list[str]) -> list[str]:
    """Lists the robot's dependencies and those of `groups`, once each.

    They are as pyproject.toml writes them, in its order.
    """
    text = (Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8")
    pyproject = tomllib.loads(text)
    extras = pyproject["project"]["optional-dependencies"]
    lines = list(pyproject["project"]["dependencies"])
    for group in groups:
        lines += pyproject["build-system"]["requires"] if group == "build" else extras[group]
    return list(dict.fromkeys(lines))


if __name__ == "__main__":
    print("\n".join(requirements(sys.argv[1:])))
