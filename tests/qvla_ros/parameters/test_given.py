"""Which of the parameters on a command line and in its files a node gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from qvla_ros.errors import QvlaError
from qvla_ros.parameters.given import fits, in_force, read_arguments


@pytest.mark.parametrize(
    ("section", "is_fit"),
    [
        *(("/**", True), ("/*", False), ("/arm/*", True), ("/*/policy", True), ("/**/**", True)),
        *(("/**/policy", True), ("/arm/**", True), ("/arm/**/policy", True), ("/arm", False)),
        *(("/arm/policy", True), ("/policy", False), ("/other/policy", False), ("", True)),
        *(("/arm/policy/*", False), ("/*/*/*", False), ("/arm/policy/**", True)),
    ],
)
def test_a_section_is_for_the_nodes_that_its_pattern_names(section: str, is_fit: bool) -> None:
    assert fits(section, "/arm/policy") is is_fit


def test_rules_win_over_files_and_later_files_over_earlier_ones(tmp_path: Path) -> None:
    files = []
    for name, text in (("a", "{x: 1, y: 1, z: 1}"), ("b", "{y: 2, z: 2}")):
        files += ["--params-file", str(tmp_path / name)]
        (tmp_path / name).write_text(f"/**:\n  ros__parameters: {text}\n")
    words = ["-p", "x:=ignored", "--ros-args", "-p", "z:=3", *files, "--", "-p", "y:=ignored"]
    written = read_arguments(words)
    found = {name: each.value for name, each in in_force(written, "/policy").items()}
    assert found == {"x": 1, "y": 2, "z": 3}


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("low:=[0.1, -3]", r"-p low:=\[0.1, -3\]: got low = \[0.1, -3\]; .*Fix: write -3.0"),
        ('options:={"threads": 2}', r"got options with values inside.*Fix: .*: options.NAME"),
        ("low:=", r"got no value; .*Fix: write a value, or take it out"),
        ("low:=[1", r"^-p low:=\[1: got .*expected a value in YAML: 0.5, text, \[1, 2\]$"),
    ],
)
def test_a_rule_that_ros_cannot_read_is_named(rule: str, message: str) -> None:
    with pytest.raises(QvlaError, match=message):
        read_arguments(["--ros-args", "-p", rule])
