"""The files of a directory that are its content, and not what a clone or a download keeps beside
it.
"""

from __future__ import annotations

from pathlib import Path


def visible_files(root: Path) -> list[Path]:
    """All files under `root` in order, but those in or called `.git`, `.cache` and the like."""
    found = (file for file in root.rglob("*") if file.is_file())
    return sorted(
        file
        for file in found
        if not any(part.startswith(".") for part in file.relative_to(root).parts)
    )
