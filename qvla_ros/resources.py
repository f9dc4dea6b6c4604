"""Finds launch files, parameters and the reference policy.

They are next to the source, or where an install put them.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import qvla_ros
from qvla_ros.errors import QvlaError


def share_directory() -> Path:
    """Directory that holds launch/, config/ and reference_policy/.

    A checkout comes first, so that an edited file is the one that is used; then each prefix of a
    colcon install (AMENT_PREFIX_PATH); then the Python environment, where pip puts share/qvla.
    """
    candidates = [Path(qvla_ros.__file__).resolve().parent.parent]
    prefixes = [
        *filter(None, os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)),
        sys.prefix,
    ]
    candidates += [Path(prefix) / "share" / "qvla" for prefix in prefixes]
    for candidate in candidates:
        if (candidate / "package.xml").is_file() and (candidate / "config").is_dir():
            return candidate
    raise QvlaError(
        "share/qvla",
        f"none of {', '.join(map(str, candidates))}",
        "a directory with package.xml and config/",
        "source the workspace's install/setup.bash, or reinstall with pip",
    )


def share_path(relative: str) -> Path:
    """Path of one shared file or directory, e.g. "config/fastdds.xml"; must exist."""
    path = share_directory() / relative
    if not path.exists():
        raise QvlaError(
            relative,
            f"nothing at {path}",
            "a file that the package installs",
            "reinstall the package",
        )
    return path
