"""`qvla eval` checks its options, and runs over DDS with policies that do nothing.

The run has no physics and no graph.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from qvla_ros.cli.episode_options import parse_bundles
from qvla_ros.cli.eval import add_arguments, bundles_of
from qvla_ros.cli.main import main
from qvla_ros.errors import QvlaError


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(arguments)


def test_bundles_are_named() -> None:
    assert parse_bundles(["float=a", "quantized=b=c"]) == {
        "float": Path("a"),
        "quantized": Path("b=c"),
    }


@pytest.mark.parametrize("pairs", [["no_equals"], ["=dir"], ["name="], ["twice=a", "twice=b"]])
def test_a_bundle_without_name_or_directory_or_named_twice_is_refused(pairs: list[str]) -> None:
    with pytest.raises(QvlaError, match="NAME=DIR"):
        parse_bundles(pairs)


@pytest.mark.parametrize("arguments", [[], ["--bundle", "a=b", "--pretrained_checkpoint", "c"]])
def test_either_bundles_or_a_checkpoint(arguments: list[str]) -> None:
    with (
        pytest.raises(QvlaError, match="either bundles or a checkpoint"),
        bundles_of(parse(*arguments)),
    ):
        pass


def test_the_released_form_exports_the_checkpoint_with_and_without_gates(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exported: list[list[str]] = []
    monkeypatch.setattr(
        "qvla_ros.cli.eval.run_qvla", lambda arguments: exported.append(list(arguments))
    )
    with bundles_of(parse("--pretrained_checkpoint", "D", "--gates_path", "G")) as bundles:
        folder = bundles["float"].parent
        assert folder.is_dir()
    export = ["export", "--pretrained_checkpoint", "D", "--task_suite_name", "libero_object"]
    assert exported == [
        [*export, "--out_dir", str(folder / "float")],
        [*export, "--gates_path", "G", "--out_dir", str(folder / "quantized")],
    ]
    assert not folder.exists()


def test_statistics_go_to_the_export_of_the_gates_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    exported: list[list[str]] = []
    monkeypatch.setattr(
        "qvla_ros.cli.eval.run_qvla", lambda arguments: exported.append(list(arguments))
    )
    words = ["--pretrained_checkpoint", "D", "--gates_path", "G", "--statistics", "S"]
    with bundles_of(parse(*words)):
        pass
    plain, quantized = exported
    assert "--statistics" not in plain
    assert quantized[quantized.index("--statistics") + 1] == "S"


@pytest.mark.parametrize(
    ("given", "passed_on"),
    [
        (["--unnorm_key", "mine"], ["--unnorm_key", "mine"]),
        (["--task_suite_name", "libero_object_named"], ["--task_suite_name", "libero_object"]),
        (["--task_suite_name", "fake"], []),
        (
            ["--task_suite_name", "libero_10", "--ensemble"],
            ["--task_suite_name", "libero_10", "--ensemble"],
        ),
    ],
)
def test_the_checkpoint_is_exported_with_the_statistics_of_the_suite(
    given: list[str], passed_on: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    exported: list[list[str]] = []
    monkeypatch.setattr(
        "qvla_ros.cli.eval.run_qvla", lambda arguments: exported.append(list(arguments))
    )
    with bundles_of(parse("--pretrained_checkpoint", "D", *given)) as bundles:
        out = str(bundles["float"])
    assert exported == [["export", "--pretrained_checkpoint", "D", *passed_on, "--out_dir", out]]


def test_the_released_log_directory_option_means_out() -> None:
    assert parse("--local_log_dir", "logs").out == Path("logs")


def test_a_missing_bundle_is_reported_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["eval", "--bundle", f"float={tmp_path / 'absent'}", "--out", str(out)]) == 2
    assert "absent" in capsys.readouterr().err
    assert not out.exists()


def test_two_policies_run_paired_over_dds_and_leave_table_results_and_report(
    bundle_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    bundles = ["--bundle", f"one={bundle_dir}", "--bundle", f"two={bundle_dir}"]
    options = [
        "--task_suite_name",
        "fake",
        "--task_ids",
        "0",
        "--num_trials_per_task",
        "1",
        "--backend",
        "sine",
    ]
    assert main(["eval", *bundles, *options, "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert "1 paired episodes" in text
    results = json.loads((out / "results.json").read_text())
    assert {episode["policy"] for episode in results["episodes"]} == {"one", "two"}
    assert len({episode["init_state"] for episode in results["episodes"]}) == 1
    assert results["versions"]["qvla"]
    report = (out / "report.html").read_text()
    assert report.count("<svg") == 2  # success and latency; a fake policy has no gates
    for episode in results["episodes"]:
        assert Path(episode["video"]).is_file()
        assert f'src="video/{Path(episode["video"]).name}"' in report
