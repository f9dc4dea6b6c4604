"""The picture of a run shows every kind of entry that runs have written.

It shows nothing that was not measured.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from qvla_reference.training_plot import (
    held_out_of_suite,
    plot_run,
    success_of_step,
    training_figure,
)
from qvla_ros.errors import QvlaError

OLD = {"step": 100, "held_out": 0.08, "training": 0.1, "episodes": 4, "samples": 9}
NEW = {
    **OLD,
    "step": 200,
    "held_out_of_suite": {"libero_object": 0.04, "libero_spatial": 0.06},
    "learning_rate": 1e-3,
    "trained_s": 7200.0,
}


def result(step: int | None, success: bool, suite: str = "libero_object") -> dict:
    return {
        "suite": suite,
        "task_id": 0,
        "init_state": 0,
        "success": success,
        "checkpoint_step": step,
    }


def test_points_come_by_suite_and_update() -> None:
    assert held_out_of_suite([OLD, NEW]) == {
        "all": [(100, 0.08)],
        "libero_object": [(200, 0.04)],
        "libero_spatial": [(200, 0.06)],
    }
    results = [
        result(200, True),
        result(200, False),
        result(100, True, "libero_spatial"),
        result(None, True),
    ]
    assert success_of_step(results) == {
        "libero_object": [(200, 1, 2)],
        "libero_spatial": [(100, 1, 1)],
    }


def test_a_suite_has_one_colour_and_intervals_are_wilsons() -> None:
    errors, success, rate = training_figure(
        [OLD, NEW], [result(200, True), result(200, False)]
    ).axes
    lines = {line.get_label(): line for line in errors.get_lines()}
    assert set(lines) == {
        "training",
        "held out",
        "held out, libero_object",
        "held out, libero_spatial",
    }
    drawn = success.containers[0]
    assert drawn.lines[0].get_color() == lines["held out, libero_object"].get_color()
    low, high = drawn.lines[2][0].get_segments()[0][:, 1]
    assert (low, high) == (pytest.approx(9.45, abs=0.01), pytest.approx(90.55, abs=0.01))
    assert list(rate.get_lines()[0].get_xdata()) == [200]
    assert "2.0 h" in errors.get_title(loc="left")


def test_a_run_without_results_is_drawn_and_one_without_curve_refused(tmp_path: Path) -> None:
    with pytest.raises(QvlaError, match="work_dir"):
        plot_run(tmp_path)
    (tmp_path / "curve.jsonl").write_text(
        json.dumps({**OLD, "held_out": None, "training": None}) + "\n"
    )
    picture = plot_run(tmp_path)
    assert Image.open(picture).size == (1040, 910)
