"""Parameter files are read as ROS reads them; what ROS would drop or refuse is named by its line.

tests/qvla_ros/nodes/test_start.py compares the values with those of ROS itself.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from qvla_ros.errors import QvlaError
from qvla_ros.parameters.files import Written, read_parameter_file, scalar
from qvla_ros.parameters.given import in_force

HEAD = "/**:\n  ros__parameters:\n"


def written(text: str, path: Path) -> list[Written]:
    path.write_text(text, encoding="utf-8")
    return read_parameter_file(path)


def test_a_value_keeps_its_file_line_section_and_type(tmp_path: Path) -> None:
    path = tmp_path / "node.yaml"
    nested = "arm:\n  policy:\n    ros__parameters:\n      a: {b: [1.0, 2.0]}\n"
    assert written(f"{nested}/x/y:\n  ros__parameters: {{c: 'yes'}}\n", path) == [
        Written(f"{path}, line 4", "/arm/policy", "a.b", [1.0, 2.0]),
        Written(f"{path}, line 6", "/x/y", "c", "yes"),
    ]
    assert written("", path) == []


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("on", True), ("No", False), ("-3", -3), ("0x1F", 31), ("010", 8), ("1e-3", 0.001)),
        *((".5", 0.5), ("+1.", 1.0), ("1e400", "1e400"), ("1_000", "1_000"), ("1:30", "1:30")),
        *(("-.inf", -math.inf), ("~", "~"), ("9" * 20, 1e20), ("0x1.8p1", 3.0)),
    ],
)
def test_a_text_without_quotes_has_the_type_that_ros_gives_it(text: str, value: object) -> None:
    assert scalar(text) == value
    assert type(scalar(text)) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + "    low: [-0.5, -3]\n", r"line 3: got low = \[-0.5, -3\].*Fix: write -3.0$"),
        (HEAD + "    low: [a, 1]\n", r"line 3: .*not text and whole$"),
        (HEAD + "    low: [[1.0], [2.0]]\n", r"line 3: got low with values inside values"),
        (HEAD + "    low:\n", r"line 3: got low without a value.*Fix: write a value, or take"),
        (HEAD + "    low: {}\n", r"line 3: got low: \{\}; .*Fix: take the line out"),
        (HEAD + "    low: 1.0\n    low: 2.0\n", r"line 4: got low again, after line 3; .*make one"),
        (HEAD + "    a: 1\n" + HEAD, r"line 4: got /\*\* again, after line 1"),
        ("/**:\n  low: 1.0\n", r"line 2: got 'low'; .*Fix: put it below `/\*\*:` and `ros__para"),
        ("low: 1.0\n", r"line 1: got 'low'; expected a node's name"),
        ("just words\n", r"line 1: got 'just words'"),
        ("/**:\n  ros_parameters:\n    a: 1\n", "line 2: got ros_parameters; expected ros__para"),
        ("/**:\n  ros__parameters:\n", r"line 2: got nothing below it; .*ros__parameters: \{\}"),
        ("/arm/pol*:\n  ros__parameters: {a: 1}\n", r"line 1: got '/arm/pol\*'; expected the name"),
        (HEAD + "\tlow: 1.0\n", r"line 3: .*Fix: correct that line"),
        (HEAD + "    low: [1.0\n", r"line 4: .*Fix: correct that line"),
        (HEAD + "    ? [a, b]\n    : 1\n", "line 3: got a key that is no name"),
        (HEAD + "    low: &a [*a]\n", "values inside values"),
        ("&a {/**: *a}\n", "too deep a nesting"),
    ],
)
def test_what_ros_refuses_or_drops_is_named_by_its_line(
    text: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(QvlaError, match=message):
        written(text, tmp_path / "node.yaml")


def test_a_file_that_cannot_be_read_is_named_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(QvlaError, match=r"absent.yaml: got no such file; .*Fix: correct the path"):
        read_parameter_file(tmp_path / "absent.yaml")
    with pytest.raises(QvlaError, match="got Is a directory; expected a parameter file$"):
        read_parameter_file(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"\xe9")
    with pytest.raises(QvlaError, match="expected a text in UTF-8$"):
        read_parameter_file(tmp_path / "latin.yaml")


def test_the_decimal_point_that_a_mixed_list_is_told_to_get_mends_it(tmp_path: Path) -> None:
    path = tmp_path / "node.yaml"
    text = HEAD + "    low: [-0.5, -3, 0x2]\n"
    with pytest.raises(QvlaError) as refused:
        written(text, path)
    for word, number in zip(("-3", "0x2"), refused.value.fix[6:].split(", "), strict=True):
        text = text.replace(word, number)
    assert in_force(written(text, path), "/policy")["low"].value == [-0.5, -3.0, 2.0]
