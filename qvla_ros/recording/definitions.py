"""Message definitions for bags: those of `rosbags`, and the .msg files that are installed."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from qvla_ros.errors import QvlaError
from qvla_ros.resources import share_path
from qvla_ros.ros_graph import CHUNK_TYPE

_OWN_TYPES = (CHUNK_TYPE, "qvla/msg/PolicyStatus")


def require_rosbags() -> None:
    """Raises a QvlaError unless `rosbags` is installed; a robot runs without it."""
    if find_spec("rosbags") is None:
        raise QvlaError(
            "bags", "no Python module 'rosbags'", "the module rosbags", "pip install rosbags"
        )


class TypeDefinitions:
    """A typestore of `rosbags` that learns types from .msg files when they are asked for."""

    def __init__(self) -> None:
        from rosbags.typesys import Stores, get_typestore

        self.store: Any = get_typestore(Stores.ROS2_KILTED)
        for kind in _OWN_TYPES:
            self.learn(kind)

    def learn(self, kind: str) -> bool:
        """Learns `kind` ("package/msg/Name") and its parts; False if a definition is missing."""
        from rosbags.typesys import get_types_from_msg
        from rosbags.typesys.msg import normalize_msgtype

        if kind in self.store.fielddefs:
            return True
        file = definition_file(kind)
        if file is None:
            return False
        found = get_types_from_msg(file.read_text(encoding="utf-8"), normalize_msgtype(kind))
        if not all(self.learn(part) for part in _parts(found[kind])):
            return False
        self.store.register(found)
        return True


def definition_file(kind: str) -> Path | None:
    """The .msg file of `kind` in a sourced workspace, the Python environment or this package.

    None if there is none.
    """
    package, _, name = kind.split("/")
    prefixes = [
        *filter(None, os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)),
        sys.prefix,
    ]
    files = (Path(prefix) / "share" / package / "msg" / f"{name}.msg" for prefix in prefixes)
    found = next((file for file in files if file.is_file()), None)
    return share_path(f"msg/{name}.msg") if found is None and package == "qvla" else found


def _parts(definition: Any) -> list[str]:
    """Names of the message types among the fields of a parsed definition: (constants, fields)."""
    from rosbags.interfaces import Nodetype

    kinds = []
    for _, (node, argument) in definition[1]:
        while node in (Nodetype.ARRAY, Nodetype.SEQUENCE):
            node, argument = argument[0]
        if node == Nodetype.NAME:
            kinds.append(argument)
    return kinds
