"""Writes environment/constraints.txt: the exact versions that pip installed in this environment.

Run by `make pin` after a deliberate upgrade. ROS interface packages also register themselves under
their plain names, which no index has; only what pip installed counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path

HEADER = """\
# The one place that pins versions: those of the environment in which the tests passed. Written by
# `make pin`. pyproject.toml names what to install; this file gives the versions installed.
"""
# The tools that bring an environment up are not part of it.
NOT_PINNED = {"pip", "wheel", "qvla-ros"}
# What no longer comes for Python 3.10, and the newest that does; None: any. Found by installing
# constraints.txt there: pip names the package that has no version.
FOR_PYTHON_3_10 = {
    "annotated-doc": "0.0.6",
    "apsw": "3.54.0.0",
    "contourpy": "1.3.2",
    "coverage": "7.16.2",
    "filelock": "4.1.0",
    "fonttools": "4.65.0",
    "httpcore2": "2.14.0",
    "httpx2": "2.14.0",
    "hypothesis": "6.168.5",
    "imageio": "2.38.0",
    "matplotlib": "3.10.9",
    "multidict": "7.1.0",
    "onnxruntime": "1.23.2",
    "pillow": "12.3.0",
    "platformdirs": "4.12.4",
    "python-dateutil": "3.0.0",
    "regex": "2026.9.29",
    "rpds-py": "0.30.0",
    "scipy": "1.15.3",
    "sqlalchemy": None,
    "stevedore": "5.9.1",
    "transformers": "5.20.2",
    "typer": "0.29.1",
}


def pinned() -> list[str]:
    """Lists `name==version` of each distribution that pip installed here, sorted.

    Local version labels (+cpu) are left out. What no longer comes for Python 3.10 has a marker, and
    a line of its own for that.
    """
    versions = {}
    for distribution in distributions():
        name = distribution.metadata["Name"].lower().replace("_", "-")
        if (distribution.read_text("INSTALLER") or "").strip() == "pip" and name not in NOT_PINNED:
            versions[name] = distribution.version.partition("+")[0]
    return [line for name, version in sorted(versions.items()) for line in lines(name, version)]


def lines(name: str, version: str) -> Iterator[str]:
    """The lines of one distribution."""
    if name not in FOR_PYTHON_3_10:
        yield f"{name}=={version}"
        return
    yield f'{name}=={version} ; python_version >= "3.11"'
    if (older := FOR_PYTHON_3_10[name]) is not None:
        yield f'{name}=={older} ; python_version < "3.11"'


if __name__ == "__main__":
    target = Path(__file__).parent / "constraints.txt"
    target.write_text(HEADER + "\n".join(pinned()) + "\n", encoding="utf-8")
    print(f"{target}: {len(pinned())} versions")
