"""docs/parameters.md says what the nodes declare."""

from __future__ import annotations

from pathlib import Path

import pytest

from qvla_ros.cli.main import main
from qvla_ros.cli.parameters import page
from qvla_ros.parameters.bridge import BridgeParameters
from qvla_ros.parameters.policy import PolicyParameters
from qvla_ros.parameters.table import specs

PAGE = Path(__file__).parents[3] / "docs" / "parameters.md"


def test_the_page_in_docs_is_what_qvla_parameters_prints_today(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["parameters"]) == 0
    assert capsys.readouterr().out == PAGE.read_text(encoding="utf-8"), (
        "qvla parameters > docs/parameters.md"
    )


def test_a_row_tells_type_default_range_and_meaning() -> None:
    rows = page().splitlines()
    assert any(
        row.startswith("| `control_hz` | double | `100.0` | 0 to 1000 | commands a second")
        for row in rows
    )
    assert any(
        row.startswith('| `pose_source` | string | `"topic"` | `topic`, `tf` | ') for row in rows
    )
    assert any(row.startswith("| `linear_low` | double[] | `[]` |  | ") for row in rows)


def test_every_parameter_of_both_nodes_is_there_once_a_node() -> None:
    named = [row.split("`")[1] for row in page().splitlines() if row.startswith("| `")]
    declared = [spec.name for spec in (*specs(PolicyParameters), *specs(BridgeParameters))]
    assert sorted(named) == sorted(declared)
