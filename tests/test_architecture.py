"""docs/architecture.md shows the tree as it is: paths that exist, every folder of the packages."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
PACKAGES = ("qvla_ros", "offline/qvla_offline", "offline/qvla_reference")


def tree_paths() -> list[str]:
    """The paths that the tree names, below the checkout; folders end in a slash.

    A line is names, two spaces or more, and what they are for. It lies in the nearest folder above
    it that is indented less.
    """
    [tree] = re.findall(r"## Tree.*?```\n(.*?)```", TEXT, re.DOTALL)
    folders: list[tuple[int, str]] = [(-1, "")]
    paths = []
    for line in tree.splitlines():
        names = re.split(r" {2,}", line.strip())[0].split()
        indent = len(line) - len(line.lstrip())
        while folders[-1][0] >= indent:
            folders.pop()
        found = [folders[-1][1] + name for name in names]
        paths += found
        if len(found) == 1 and found[0].endswith("/"):
            folders.append((indent, found[0]))
    return paths


def test_every_path_of_the_tree_exists() -> None:
    paths = tree_paths()
    assert len(paths) > 100
    for path in paths:
        assert (ROOT / path).exists(), path
        assert (ROOT / path).is_dir() == path.endswith("/"), path


def test_every_folder_of_the_packages_is_in_the_tree() -> None:
    named = set(tree_paths())
    for package in PACKAGES:
        for file in (ROOT / package).rglob("__init__.py"):
            assert f"{file.parent.relative_to(ROOT)}/" in named, file.parent


def sections() -> set[str]:
    """The sections, spelled as links spell them."""
    titles = re.findall(r"^## (.*)$", TEXT, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_link_leads_somewhere_and_every_how_to_is_linked() -> None:
    links = re.findall(r"\]\((?!http)([^)#]*)#?([^)]*)\)", TEXT)
    for file, section in links:
        assert (ROOT / "docs" / file).exists(), file
        assert file or section in sections(), section
    pages = {f"how_to/{page.name}" for page in (ROOT / "docs" / "how_to").iterdir()}
    assert pages <= {file for file, _ in links}


def test_sections_that_other_documents_name_exist() -> None:
    for document in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for section in re.findall(r"architecture\.md#([\w-]+)", document.read_text("utf-8")):
            assert section in sections(), f"{document.name}: {section}"
