"""Changes values of a bundle's JSON files, and signs the bundle again."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

from qvla_ros.bundle import _identity, sha256_of

VALUES = (None, True, -1, 10**20, 1e308, "", "x", [], {}, [[]], "../x", "{instruction}", [1, 2, 3])


def places(value: Any, path: tuple = ()) -> list[tuple]:
    """The paths of everything below `value`."""
    inner = value.items() if isinstance(value, dict) else ()
    inner = enumerate(value) if isinstance(value, list) else inner
    found = [path] if path else []
    return found + [place for key, item in inner for place in places(item, (*path, key))]


def mutate(content: Any, draw: random.Random) -> Any:
    """One value in it becomes another, goes, or comes twice."""
    *folders, key = draw.choice(places(content))
    holder = content
    for folder in folders:
        holder = holder[folder]
    change = draw.randrange(4)
    if change == 0:
        del holder[key]
    elif change == 1 and isinstance(holder, list):
        holder.append(copy.deepcopy(holder[key]))
    elif change == 2 and type(holder[key]) in (int, float):
        holder[key] = draw.choice((-holder[key], holder[key] * 3, holder[key] + 1))
    else:
        holder[key] = draw.choice(VALUES)
    return content


def sign(directory: Path, manifest: dict[str, Any]) -> None:
    """Writes the manifest with the hashes of the files as they are."""
    files = manifest.get("files")
    if isinstance(files, dict):
        for name in files:
            if (directory / name).is_file():
                files[name] = sha256_of(directory / name)
    manifest["bundle_id"] = _identity({k: v for k, v in manifest.items() if k != "bundle_id"})
    (directory / "bundle.json").write_text(json.dumps(manifest))
