"""`qvla doctor`: what it is given, and what it says of that."""

from __future__ import annotations

import pytest

from qvla_ros.cli import main as cli


@pytest.mark.parametrize("text", ["[1]", "{a", "threads=2"])
def test_engine_options_that_are_no_object_are_refused_by_name(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["doctor", "--no_graph", "--engine_options", text]) == 2
    error = capsys.readouterr().err
    assert "--engine_options" in error
    assert "a JSON object" in error
