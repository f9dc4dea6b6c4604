"""Reading YAML: the content, or an error that names the option, the file and the fix."""

from __future__ import annotations

from pathlib import Path

import pytest

from qvla_ros.errors import QvlaError
from qvla_ros.strict_json import parse, read_json
from qvla_ros.yaml_file import read_yaml


def test_the_content_is_read(tmp_path: Path) -> None:
    path = tmp_path / "robot.yaml"
    path.write_text("rate_hz: 20\nnames: [a, ä]\n", encoding="utf-8")
    assert read_yaml(path, "robot", "write it") == {"rate_hz": 20, "names": ["a", "ä"]}


@pytest.mark.parametrize(
    "content",
    [
        *(None, b"a: [1", b"\xff\xfe\x00"),
        *(b"a: !!bool x", b"a: !!int ''", b"a: !!timestamp x", b"a: !!float ''"),
    ],
)
def test_what_is_absent_or_no_yaml_names_option_file_and_fix(
    content: bytes | None, tmp_path: Path
) -> None:
    path = tmp_path / "robot.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(QvlaError) as caught:
        read_yaml(path, "--robot_path", "write it after the example")
    assert caught.value.key == "--robot_path"
    assert str(path) in str(caught.value.value)
    assert caught.value.fix == "write it after the example"


def test_a_missing_file_is_called_so(tmp_path: Path) -> None:
    with pytest.raises(QvlaError, match=r"robot.yaml: no such file; expected a YAML file"):
        read_yaml(tmp_path / "robot.yaml", "--robot_path", "write it after the example")


@pytest.mark.parametrize("text", ["1e-3", "-2e5", "3e-7", "'0.5'"])
def test_a_number_that_yaml_reads_as_text_is_told_how_to_be_written(text: str, tmp_path: Path):
    file = tmp_path / "some.yaml"
    file.write_text(f"value: {text}")
    with pytest.raises(QvlaError, match="a number") as caught:
        parse(float, read_yaml(file, "some", "fix")["value"], "value", "another fix")
    file.write_text(f"value: {caught.value.fix.split()[1].rstrip(',')}")
    found = parse(float, read_yaml(file, "some", "fix")["value"], "value", "another fix")
    assert found == float(text.strip("'"))


def test_what_the_system_does_not_let_us_read_has_a_fix_of_its_own(tmp_path: Path) -> None:
    for read in (lambda path: read_yaml(path, "key", "write it anew"), read_by_json):
        with pytest.raises(QvlaError) as caught:
            read(tmp_path)
        assert caught.value.fix == "name a file: this is a directory"


def test_text_without_end_of_brackets_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "deep"
    file.write_text("[" * 2000)
    for read in (lambda path: read_yaml(path, "key", "write it anew"), read_by_json):
        with pytest.raises(QvlaError, match="brackets"):
            read(file)


def read_by_json(path: Path) -> object:
    return read_json(path, "write it anew")


@pytest.mark.parametrize("text", ["a: 1\nb: 2\na: 3", "a: {b: 1, b: 2}", "[{a: 1, a: 1}]"])
def test_a_key_that_stands_twice_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "some.yaml"
    file.write_text(text)
    with pytest.raises(QvlaError, match="stands twice"):
        read_yaml(file, "some", "fix")


def test_a_key_that_takes_the_place_of_a_merged_one_is_yaml(tmp_path: Path) -> None:
    file = tmp_path / "some.yaml"
    file.write_text("base: &base {a: 1, b: 2}\nown:\n  <<: *base\n  b: 3\n")
    assert read_yaml(file, "some", "fix")["own"] == {"a": 1, "b": 3}
