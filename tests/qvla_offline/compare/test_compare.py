"""`qvla compare` on a small checkpoint, in a simulation without physics."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.observations import error

pytestmark = pytest.mark.filterwarnings("ignore::qvla_ros.errors.QvlaWarning")
EPISODES = ("--episodes", 2, "--suites", "fake")
NAMES = ["float", "rtn@3", "rtn@4", "mixed@5"]


def courses(out: Path) -> list[dict[str, Any]]:
    """The log without what depends on the clock, in an order of its own."""
    records = [json.loads(line) for line in (out / "episodes.jsonl").read_text().splitlines()]
    for record in records:
        record.pop("duration_s")
        record.pop("inference_ms")
    return sorted(records, key=lambda record: (record["init_state"], record["policy"]))


@pytest.fixture(scope="module")
def finished(compare: Callable[..., int], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a whole run leaves behind; do not change it."""
    out = tmp_path_factory.mktemp("finished")
    assert compare(out, *EPISODES) == 0
    return out


def test_every_policy_runs_from_the_same_starts(finished: Path) -> None:
    records = courses(finished)
    assert len(records) == 2 * len(NAMES)
    starts = {(record["init_state"], record["seed"]) for record in records}
    assert starts == {(0, 0), (1, 0)}
    document = json.loads((finished / "comparison.json").read_text())
    assert [policy["name"] for policy in document["policies"]] == NAMES
    everything = [result for result in document["closed_loop"] if result["suite"] == "all"]
    assert [(result["policy"], result["trials"]) for result in everything] == [
        (name, 2) for name in NAMES
    ]


def test_errors_are_those_of_qvla_error(finished: Path, place: Path, tmp_path: Path) -> None:
    options = ["--uniform", "4", "--quantizer", "rtn", "--group_size", "16"]
    assert error(place, *options, "--out_json", str(tmp_path / "error.json")) == 0
    expected = json.loads((tmp_path / "error.json").read_text())["results"][0]
    found = json.loads((finished / "comparison.json").read_text())["policies"][2]
    assert found["error"] == expected["measured_error"]
    assert found["stored_bits"] == expected["bits_per_weight"]["stored"]


def test_tables_and_figures_are_written_in_every_form(finished: Path) -> None:
    with (finished / "numbers.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [(line["policy"], line["suite"]) for line in lines] == [
        (name, suite) for name in NAMES for suite in ("all", "fake")
    ]
    assert lines[2]["stored_bits"] == ""  # no container holds 3 bits
    tex = (finished / "tables.tex").read_text()
    assert tex.count(r"\toprule") == tex.count(r"\bottomrule") == 4
    assert "rtn@4 & 5." in tex
    for name in ("error", "success"):
        assert (finished / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        assert "rtn" in (finished / f"{name}.svg").read_text()


def test_a_run_that_was_interrupted_goes_on_also_on_a_ray_cluster(
    finished: Path, compare: Callable[..., int], tmp_path: Path
) -> None:
    lines = (finished / "episodes.jsonl").read_text().splitlines()
    (tmp_path / "episodes.jsonl").write_text("\n".join(lines[:-3]) + "\n")
    assert compare(tmp_path, *EPISODES, "--ray", "local", "--workers", 2) == 0
    kept = (tmp_path / "episodes.jsonl").read_text().splitlines()
    assert kept[: len(lines) - 3] == lines[:-3]
    assert courses(tmp_path) == courses(finished)


def test_what_is_there_can_be_shown_again(
    finished: Path, compare: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.read_bytes() for path in finished.iterdir() if path.is_file()}
    assert compare(finished, "--print_only") == 0
    assert "| mixed@5 |" in capsys.readouterr().out
    assert before == {path.name: path.read_bytes() for path in finished.iterdir() if path.is_file()}


def test_gates_and_fake_quantized_checkpoints_drive_as_their_bundle_does(
    finished: Path, compare: Callable[..., int], place: Path, tmp_path: Path
) -> None:
    """Up to rounding to float16, which moves the end of no episode here."""
    gates = ["--gates_path", f"gates={place / 'gates.json'}"]
    restored = ["--fakequant", f"restored={place / 'fakequant'}"]
    assert compare(tmp_path, *EPISODES, *gates, *restored) == 0
    steps: dict[str, list[float]] = {}
    for record in courses(tmp_path):
        steps.setdefault(record["policy"], []).append(record["path_length_m"])
    assert steps["gates"] == pytest.approx(steps["mixed@5"], rel=1e-6)
    assert steps["restored"] == pytest.approx(steps["mixed@5"], rel=0.05)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        (("--episodes", "2", "--suites", "fake", "--workers", "0"), "workers"),
        (("--episodes", "2", "--suites", "libero_moon"), "suites"),
        (("--bundle", "float=nowhere"), "bundle"),
        (("--print_only",), "comparison.json"),
    ],
)
def test_bad_input_is_refused_by_its_key(
    compare: Callable[..., int],
    options: tuple[str, ...],
    key: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert compare(tmp_path, *options) == 2
    assert key in capsys.readouterr().err.splitlines()[0]
