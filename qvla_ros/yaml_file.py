"""Reads a YAML file, or names what keeps it from being read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from qvla_ros.errors import QvlaError


def read_yaml(path: Path, key: str, fix: str, expected: str = "a YAML file") -> Any:
    """The content of `path`; QvlaError(key, ...) when it is absent, not UTF-8 or not YAML.

    key: the option or field that names the file. fix: what a user does to get a right one.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise QvlaError(key, f"{path}: no such file", expected, fix) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise QvlaError(key, f"{path}: {error}", expected, fix) from None
