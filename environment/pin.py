"""Writes environment/constraints.txt: the exact versions that pip installed in this environment.

Run by `make pin` after a deliberate upgrade. ROS interface packages also register themselves under
their plain names, which no index has; only what pip installed counts.
"""

from __future__ import annotations

from importlib.metadata import distributions
from pathlib import Path

HEADER = """\
# The one place that pins versions: those of the environment in which the tests passed. Written by
# `make pin`. pyproject.toml names what to install; this file gives the versions installed.
"""
# The tools that bring an environment up are not part of it.
NOT_PINNED = {"pip", "wheel", "qvla-ros"}


def pinned() -> list[str]:
    """Lists `name==version` of each distribution that pip installed here, sorted.

    Local version labels (+cpu) are left out.
    """
    versions = {}
    for distribution in distributions():
        name = distribution.metadata["Name"].lower().replace("_", "-")
        if (distribution.read_text("INSTALLER") or "").strip() == "pip" and name not in NOT_PINNED:
            versions[name] = distribution.version.partition("+")[0]
    return [f"{name}=={version}" for name, version in sorted(versions.items())]


if __name__ == "__main__":
    target = Path(__file__).parent / "constraints.txt"
    target.write_text(HEADER + "\n".join(pinned()) + "\n", encoding="utf-8")
    print(f"{target}: {len(pinned())} versions")
