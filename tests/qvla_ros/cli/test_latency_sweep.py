"""`qvla latency_sweep`: a whole run over DDS (no physics), printed again, and what it refuses."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from qvla_ros.cli.main import main

PNG = b"\x89PNG\r\n"


def test_a_sweep_leaves_table_numbers_and_plot_and_prints_them_again(
    bundle_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = [
        "latency_sweep",
        "--bundle",
        f"tiny={bundle_dir}",
        "--task_suite_name",
        "fake",
        "--backend",
        "sine",
    ]
    options = [
        "--latencies_s",
        "0,0.2",
        "--handovers",
        "skip",
        "--num_trials_per_task",
        "1",
        "--out",
        str(out),
    ]
    assert main([*command, *options]) == 0
    printed = capsys.readouterr().out
    rows = list(csv.DictReader((out / "latency.csv").open(encoding="utf-8")))
    # The tiny bundle's chunks last 0.2 s: at that latency nothing of them is left, and the arm
    # never moves.
    assert [(row["latency_s"], row["successes"], row["hold_share"]) for row in rows] == [
        ("0.0", "1", "0.0"),
        ("0.2", "0", "1.0"),
    ]
    assert (out / "latency.png").read_bytes().startswith(PNG)
    (out / "latency.png").unlink()
    assert main(["latency_sweep", "--print_only", "--out", str(out)]) == 0
    assert capsys.readouterr().out == printed
    assert (out / "latency.png").read_bytes().startswith(PNG)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--latencies_s", "0,fast"], "latencies_s"),
        (["--latencies_s", "0.1,0.1"], "distinct values"),
        (["--handovers", "jump"], "one of skip, restart, wait"),
        (["--faults", "drop@1"], "one of drop_camera"),
        (["--blend_steps", "-1"], "0 or more"),
    ],
)
def test_conditions_that_mean_nothing_are_refused_before_anything_starts(
    bundle_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    out = tmp_path / "out"
    assert (
        main(["latency_sweep", "--bundle", f"tiny={bundle_dir}", *options, "--out", str(out)]) == 2
    )
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_there_is_nothing_to_print_before_a_sweep(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["latency_sweep", "--print_only", "--out", str(tmp_path)]) == 2
    assert "run it first" in capsys.readouterr().err


def test_what_means_nothing_in_lock_step_is_refused_by_eval(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["eval", "--bundle", "a=b", "--blend_steps", "2"]) == 2
    assert "--latency_s measured" in capsys.readouterr().err
