"""Results appear whole or not at all, and never in place of what is not a result."""

from __future__ import annotations

from pathlib import Path

import pytest

from qvla_ros.atomic import atomic_directory, atomic_file
from qvla_ros.errors import QvlaError


def write_result(target: Path, content: str) -> None:
    with atomic_directory(target, "bundle.json") as directory:
        (directory / "bundle.json").write_text(content)


def write_half_a_directory(folder: Path) -> None:
    with atomic_directory(folder / "bundle", "bundle.json") as directory:
        (directory / "bundle.json").write_text("half")
        raise ZeroDivisionError


def write_half_a_file(folder: Path) -> None:
    with atomic_file(folder / "gates.json") as file:
        file.write_text("half")
        raise ZeroDivisionError


def test_a_failed_block_leaves_the_earlier_result_and_nothing_else(tmp_path: Path) -> None:
    write_result(tmp_path / "bundle", "first")
    (tmp_path / "gates.json").write_text("first")
    for fail in (write_half_a_directory, write_half_a_file):
        with pytest.raises(ZeroDivisionError):
            fail(tmp_path)
    assert (
        (tmp_path / "bundle" / "bundle.json").read_text()
        == (tmp_path / "gates.json").read_text()
        == "first"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "gates.json"]


def test_an_earlier_result_and_an_empty_directory_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    for content in ("first", "second"):
        write_result(tmp_path / "bundle", content)
        assert [path.read_text() for path in (tmp_path / "bundle").iterdir()] == [content]
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_directory_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(QvlaError, match="other files in it"):
        write_result(tmp_path, "bundle")
    with pytest.raises(QvlaError, match="output directory"):
        write_result(tmp_path / "thesis.tex", "bundle")
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
