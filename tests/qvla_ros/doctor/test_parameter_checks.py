"""The doctor says of a parameter file what the node would say, and reads what is in force."""

from __future__ import annotations

from pathlib import Path

import pytest

from qvla_ros.doctor.parameter_checks import parameter_findings
from qvla_ros.resources import share_path

HEAD = "/**:\n  ros__parameters:\n"


def test_a_robots_file_is_in_force_in_any_namespace() -> None:
    path = share_path("config/robots/ur_servo/node.yaml")
    for node in ("/arm/policy", "/policy"):
        values, [finding] = parameter_findings(path, node)
        assert values["output"] == "twist"
        assert finding.status == "ok"
        assert finding.about == f"{path} for {node}"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("policy:\n  ros__parameters:\n    max_image_age_s: 0.1\n", "/arm/policy has 1.0"),
        (f"{HEAD}    max_image_age_s: soon\n", "parameter max_image_age_s: got 'soon'"),
        (f"{HEAD}    max_image_age_s: .nan\n", "parameter max_image_age_s: got nan"),
        (f"{HEAD}    control_hz: 50\n", "control_hz: got 50; expected double"),
        (f"{HEAD}    output: twists\n", "output: got 'twists'; expected one of"),
        (f"{HEAD}    control_hzz: 50.0\n", "did you mean control_hz"),
        ("output: twist", "line 1: got 'output'"),
    ],
)
def test_a_file_that_the_node_would_refuse_is_a_problem(
    text: str, words: str, tmp_path: Path
) -> None:
    path = tmp_path / "node.yaml"
    path.write_text(text)
    values, [finding] = parameter_findings(path, "/arm/policy")
    assert values == {}
    assert finding.status == "problem"
    assert words in finding.text


def test_a_name_that_nothing_knows_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "node.yaml").write_text(f"{HEAD}    speed: 0.1\n")
    values, [finding] = parameter_findings(tmp_path / "node.yaml", "/policy")
    assert values == {"speed": 0.1}
    assert finding.status == "warning"
    assert "speed has no effect" in finding.text
