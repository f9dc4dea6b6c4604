"""Lists the files of a directory without those that a clone or a download adds to them."""

from __future__ import annotations

from pathlib import Path


def visible_files(root: Path) -> list[Path]:
    """Lists all files under `root` in order, except those in or called `.git`, `.cache` etc."""
    found = (file for file in root.rglob("*") if file.is_file())
    return sorted(
        file
        for file in found
        if not any(part.startswith(".") for part in file.relative_to(root).parts)
    )
