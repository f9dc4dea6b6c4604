"""docs/how_to/add_engine.md, followed to the letter with its own example."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.extending.page import enter, read_page

if TYPE_CHECKING:
    from tests.qvla_ros.nodes.conftest import Robot

PAGE = read_page("add_engine")


def test_the_page_needs_one_file_and_one_registration() -> None:
    assert (len(PAGE.sources), len(PAGE.registrations)) == (1, 1)


def test_an_engine_added_from_the_page_passes_its_tests_and_the_doctors(checkout: Path) -> None:
    printed = PAGE.follow(checkout)
    assert "onnx_reference" in (checkout / "docs" / "parameters.md").read_text()
    [percent] = re.findall(r"ok +parity: onnx \S+ reference: off by up to (\S+) %", printed)
    assert float(percent) < 1e-3  # float32 summed in another order


def test_an_engine_added_from_the_page_serves_a_policy_node(
    checkout: Path,
    start: Callable,
    robot: Robot,
    bundle_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    PAGE.apply(checkout)
    enter(checkout, monkeypatch)
    parameters = {"bundle": str(bundle_dir), "backend": "onnx_reference"}
    start("policy", parameters, "x")
    robot.wait_until_active()
    robot.tell("pick up the milk")
    chunk = robot.ask()
    assert chunk.horizon == 4
    assert len(set(chunk.data)) > 1
