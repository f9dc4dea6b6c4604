"""The pages of docs/how_to keep their form.

They name the files to touch first and errors that exist, and a registration is one change.
"""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.extending.page import PAGES, ROOT, Block, changed, read_page

NAMES = sorted(page.stem for page in PAGES.glob("*.md"))
SOURCES = "\n".join(
    file.read_text(encoding="utf-8")
    for folder in ("qvla_ros", "offline", "launch")
    for file in (ROOT / folder).rglob("*.py")
)


def text_of(name: str) -> str:
    return (PAGES / f"{name}.md").read_text(encoding="utf-8")


def test_there_is_a_page_for_each_seam() -> None:
    seams = {"quantizer", "engine", "output", "checkpoint_family", "robot"}
    assert set(NAMES) == {f"add_{seam}" for seam in seams}
    tests = {file.stem.removeprefix("test_") for file in Path(__file__).parent.glob("test_add_*")}
    assert tests == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_files_to_touch_are_named_first_and_are_those_of_the_example(name: str) -> None:
    [table] = re.findall(r"\| file \|.*?\n\n", text_of(name), re.DOTALL)
    named = re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)
    page = read_page(name)
    touched = [block.title for block in [*page.sources, *page.registrations]]
    assert len(named) == len(touched) <= 3
    for path in touched:
        patterns = [pattern.replace("NAME", "*") for pattern in named]
        assert any(fnmatch(path, f"*{pattern}") for pattern in patterns), path


@pytest.mark.parametrize("name", NAMES)
def test_the_errors_that_a_page_names_are_in_the_program(name: str) -> None:
    section = text_of(name).partition("## What can go wrong")[2]
    keys = re.findall(r"`([^`\n]+?): got", section)
    assert keys
    for key in keys:
        # Words in capitals stand for names.
        for part in re.split(r"\b[A-Z]{2,}\b", key):
            assert part.strip(" :") in SOURCES, key


def test_a_change_is_made_where_the_lines_around_it_stand() -> None:
    text = "a = 1\nb = 2\n\nc = 3\n"
    change = Block("diff", "file.py", " a = 1\n+new = 0\n@@\n-c = 3\n+c = 4\n")
    assert changed(text, change) == "a = 1\nnew = 0\nb = 2\n\nc = 4\n"


@pytest.mark.parametrize("around", [" z = 9\n", " a = 1\n"])
def test_a_change_of_lines_that_are_missing_or_there_twice_is_refused(around: str) -> None:
    with pytest.raises(AssertionError, match=r"file\.py does not hold, once"):
        changed("a = 1\na = 1\n", Block("diff", "file.py", f"{around}+new = 0\n"))
