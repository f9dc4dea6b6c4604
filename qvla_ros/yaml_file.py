"""Reads a YAML file, or names what keeps it from being read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from qvla_ros.errors import QvlaError, os_error_fix


class _Loader(yaml.SafeLoader):
    """As YAML's rules are, and as PyYAML is not: no key twice in one mapping."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode) and not key.tag.endswith(":merge"):
                if (key.tag, key.value) in seen:
                    problem = f"the key {key.value!r} stands twice"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


def read_yaml(path: Path, key: str, fix: str, expected: str = "a YAML file") -> Any:
    """The content of `path`; QvlaError(key, ...) when it is absent, not UTF-8 or not YAML.

    key: the option or field that names the file. fix: what a user does to get a right one; a file
    that the system does not let us read has a fix of its own.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)  # a safe one
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
