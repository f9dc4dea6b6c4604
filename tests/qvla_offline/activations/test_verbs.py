"""Rounded activations in `qvla error`, and `qvla activations`, on a small checkpoint."""

from __future__ import annotations

import json

import pytest

from qvla_offline.checkpoints.random_checkpoint import write_random_checkpoint
from qvla_ros.cli.main import main
from tests.support.observations import error, write_observations

pytestmark = pytest.mark.filterwarnings("ignore::qvla_ros.errors.QvlaWarning")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("activations")
    write_random_checkpoint(folder / "tiny")
    write_observations(folder / "held_out", 8, seed=1)
    write_observations(folder / "data", 3, seed=5)
    out = ["--out_dir", folder / "statistics", "--probes", 1]
    assert main(["statistics", *calibrated(folder), *map(str, out)]) == 0
    return folder


def calibrated(place) -> list[str]:
    paths = ["--pretrained_checkpoint", place / "tiny"]
    return [str(w) for w in [*paths, "--calib_jsonl", place / "data" / "set_5.jsonl"]]


def measured(place, *options: object) -> dict[str, float]:
    out = place / "error.json"
    statistics = ["--statistics", place / "statistics", "--group_size", 16]
    assert error(place, *statistics, *options, "--out_json", out) == 0
    lines = json.loads(out.read_text())["results"]
    return {line["name"]: line["measured_error"]["mean"] for line in lines}


@pytest.mark.parametrize("scaling", ["dynamic", "static"])
def test_fewer_bits_of_activations_move_the_actions_more(place, scaling):
    given = ["--uniform", "16", "--activation_scaling", scaling, "--activation_bits"]
    errors = [next(iter(measured(place, *given, bits).values())) for bits in (16, 8, 4)]
    assert errors[0] < errors[1] < errors[2]
    (name,) = measured(place, *given, 8)
    assert name == f"uniform 16 bits, activations 8 bits {scaling}"


def test_smoothquant_rounds_inputs_as_its_scales_have_them(place):
    """With weights of 16 bits there are no scales; at 8 bits the activations make the error."""
    given = ["--quantizer", "smoothquant", "--uniform", "8"]
    (weights_alone,) = measured(place, *given).values()
    (both,) = measured(place, *given, "--activation_bits", 8).values()
    (four,) = measured(place, *given, "--activation_bits", 4).values()
    assert weights_alone < both < four


def test_layers_that_need_more_get_it(place):
    given = ["--uniform", "16", "--activation_bits", 4]
    (plain,) = measured(place, *given).values()
    (ruled,) = measured(place, *given, "--activation_layer_bits", "language_model.*=16").values()
    assert ruled < plain


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--activation_bits", 5), "error: activation_bits"),
        (("--activation_scaling", "static", "--activation_bits", 8), "static without statistics"),
        (("--activation_bits", 8, "--activation_layer_bits", "b.*=4"), "near names"),
        (("--activation_bits", 8, "--bundle", "bundle"), "engines keep activations"),
    ],
)
def test_what_cannot_be_rounded_is_refused_before_anything_runs(place, options, message, capsys):
    assert error(place, "--uniform", "8", *options) == 2
    captured = capsys.readouterr()
    assert message in " ".join(captured.err.split())
    assert "action error" not in captured.err


def test_the_verb_shows_which_layers_need_more(place, capsys):
    out = place / "scores.json"
    more = ["--probes", "1", "--max_samples", "2", "--exact", "--out_json", str(out)]
    assert main(["activations", *calibrated(place), *more]) == 0
    shown = capsys.readouterr().out
    scores = json.loads(out.read_text())
    assert all(name in shown for name in scores)
    assert "8 bits: rank correlation" in shown
    assert all(score["8"] < score["4"] for score in scores.values())
    assert main(["activations", *calibrated(place), "--bits", "2"]) == 2
    assert "error: bits" in capsys.readouterr().err
