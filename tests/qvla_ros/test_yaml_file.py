"""Reading YAML: the content, or an error that names the option, the file and the fix."""

from __future__ import annotations

from pathlib import Path

import pytest

from qvla_ros.errors import QvlaError
from qvla_ros.yaml_file import read_yaml


def test_the_content_is_read(tmp_path: Path) -> None:
    path = tmp_path / "robot.yaml"
    path.write_text("rate_hz: 20\nnames: [a, ä]\n", encoding="utf-8")
    assert read_yaml(path, "robot", "write it") == {"rate_hz": 20, "names": ["a", "ä"]}


@pytest.mark.parametrize("content", [None, b"a: [1", b"\xff\xfe\x00"])
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
