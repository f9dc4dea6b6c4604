"""Reads a YAML file, or names what keeps it from being read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from qvla_ros.errors import QvlaError, os_error_fix


def read_yaml(path: Path, key: str, fix: str, expected: str = "a YAML file") -> Any:
    """The content of `path`; QvlaError(key, ...) when it is absent, not UTF-8 or not YAML.

    key: the option or field that names the file. fix: what a user does to get a right one; a file
    that the system does not let us read has a fix of its own.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise QvlaError(key, f"{path}: no such file", expected, fix) from None
    except OSError as error:
        raise QvlaError(key, f"{path}: {error}", expected, os_error_fix(error)) from None
    # A date that does not exist is a ValueError, as is what is not UTF-8; what is tagged as a type
    # that it has not (!!bool x) fails in the other ways.
    except (ValueError, LookupError, AttributeError, yaml.YAMLError) as error:
        found = f"{path}: {type(error).__name__}: {error}"
        raise QvlaError(key, found, expected, fix) from None
    except RecursionError:
        found = f"{path}: brackets in brackets without end"
        raise QvlaError(key, found, expected, fix) from None
