"""A recipe measures its result on observations that none of its steps has read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qvla_offline.checkpoints.random_checkpoint import write_random_checkpoint
from qvla_offline.recipe import run_recipe
from qvla_offline.recipe.measured_error import BASELINE, RESULT
from qvla_ros.errors import QvlaError, QvlaWarning
from tests.support.observations import write_observations
from tests.support.tiny_recipe import write_recipe

pytestmark = pytest.mark.filterwarnings("ignore:observations")  # few of them say little


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("measured")
    write_random_checkpoint(folder / "tiny")
    write_observations(folder / "data", 6, seed=5)
    write_observations(folder / "data", 3, seed=6)
    return folder


def recipe(place: Path, **changes: object) -> Path:
    own = {
        "checkpoint": "tiny",
        "calibration": "data/set_5.jsonl",
        "gates": {"target_avg_bits": 8.0, "measured_samples": 2},
        "fakequant": False,
    }
    return write_recipe(place, "recipe.yaml", **(own | changes))


def measured(out: Path) -> dict:
    return json.loads((out / "summary.json").read_text())["measured_error"]


def test_without_observations_the_rest_of_the_calibration_set_is_kept_for_it(place, capsys):
    out = run_recipe(recipe(place))
    report = measured(out)
    assert [one["name"] for one in report["results"]] == [RESULT, BASELINE]
    assert [one["kind"] for one in report["results"]] == ["bundle", "uniform"]
    # six in the set: two scored, two that compared gates
    assert {one["measured_error"]["observations"] for one in report["results"]} == {2}
    assert BASELINE in capsys.readouterr().out
    run_recipe(recipe(place))
    assert "error: up to date" in capsys.readouterr().out


def test_observations_that_are_named_are_measured_on(place):
    named = {"observations": "data/set_6.jsonl", "max_samples": 3}
    report = measured(run_recipe(recipe(place, error=named), place / "named"))
    assert report["observations"].endswith("set_6.jsonl")
    assert report["results"][0]["measured_error"]["observations"] == 3


def test_observations_that_were_calibrated_on_are_refused(place):
    path = recipe(place, error={"observations": "data/set_5.jsonl"})
    with pytest.raises(QvlaError, match="^observations: .*no step of the quantization has read"):
        run_recipe(path, place / "seen")
    assert not (place / "seen" / "error.json").exists()


def test_where_no_sample_is_left_a_warning_says_that_nothing_was_measured(place):
    everything = {"probes": 1, "max_samples": 6}
    path = recipe(place, sensitivity=everything, gates={"target_avg_bits": 8.0})
    with pytest.warns(QvlaWarning, match="error: not measured"):
        out = run_recipe(path, place / "none")
    assert measured(out) == {}


def test_gates_are_measured_where_there_is_no_bundle_and_nothing_at_0_samples(place):
    out = run_recipe(recipe(place, bundle=False), place / "gates")
    assert measured(out)["results"][0]["kind"] == "gates"
    out = run_recipe(recipe(place, bundle=False, error={"max_samples": 0}), place / "off")
    assert measured(out) == {}
    assert not (out / "error.json").exists()


def test_a_negative_number_of_samples_is_refused(place):
    with pytest.raises(QvlaError, match=r"error\.max_samples: got -1"):
        run_recipe(recipe(place, error={"max_samples": -1}), place / "negative")
