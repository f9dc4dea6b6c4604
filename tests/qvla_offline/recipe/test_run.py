"""The steps of a recipe: what runs, what is up to date, and what is refused before the first."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from qvla_offline.checkpoints.io import load_checkpoint
from qvla_offline.checkpoints.targets import unexecuted_targets
from qvla_offline.export.bundle import export_bundle
from qvla_offline.export.exportable import require_exportable
from qvla_offline.export.options import ExportOptions
from qvla_offline.fakequant import target_shapes
from qvla_offline.gates import read_gates
from qvla_offline.gates.assign import assign_gates
from qvla_offline.gates.foresight import require_affordable
from qvla_offline.gates.options import Budget
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_offline.recipe import run_recipe
from qvla_offline.robot import LIBERO
from qvla_offline.sensitivity.store import Sensitivity, read_sensitivity
from qvla_ros.bundle import load_bundle, sha256_of
from qvla_ros.errors import QvlaError
from tests.support.tiny_recipe import SAMPLES, write_inputs, write_recipe

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A directory with a tiny checkpoint and a calibration file."""
    return write_inputs(tmp_path_factory.mktemp("work"))


def test_recipe_makes_a_bundle_within_its_budget_and_a_checkpoint_with_its_numbers(work, capsys):
    checked = {"probes": 1, "max_samples": SAMPLES, "check": 8}
    budget = {"target_avg_bits": 8.0, "cost": "stored", "joint_rounds": 1}
    path = write_recipe(work, "one.yaml", sensitivity=checked, gates=budget)
    out = run_recipe(path, work / "one")
    bundle = load_bundle(out / "bundle")
    assert bundle.quantization.stored_bits_per_weight <= 8.0
    gates = read_gates(out / "gates.json")
    assert bundle.quantization.stored_bits_per_weight == pytest.approx(
        gates.budget["stored_bits_per_weight"], abs=1e-4
    )
    final = read_gates(out / "bundle" / "gates.json")
    before = load_file(work / "checkpoint" / "model.safetensors")
    after = load_file(out / "fakequant" / "model.safetensors")
    for name, bits in final.layers.items():
        zeroed = after[f"{name}.weight"].flatten(1).abs().sum(dim=1).numpy() == 0
        assert np.array_equal(zeroed, bits == 0)
        unchanged = (
            (before[f"{name}.weight"] == after[f"{name}.weight"]).flatten(1).all(dim=1).numpy()
        )
        assert unchanged[bits == 16].all()
    summary = json.loads((out / "summary.json").read_text())
    assert summary["agreement"]["count"] == 8
    assert summary["budget"]["measured_error"] > 0
    assert sum(summary["bit_histogram"].values()) == sum(
        layer["rows"] for layer in summary["layers"] if layer["executed"]
    )
    capsys.readouterr()
    run_recipe(path, work / "one")
    assert capsys.readouterr().out.count("up to date") == 6


def test_a_changed_budget_runs_gates_and_bundle_again_but_not_the_sensitivity(work, capsys):
    out = run_recipe(write_recipe(work, "two.yaml", fakequant=False), work / "two")
    first = (out / "gates.json").read_bytes()
    capsys.readouterr()
    changed = write_recipe(work, "two.yaml", fakequant=False, gates={"target_avg_bits": 9.0})
    run_recipe(changed, work / "two")
    printed = capsys.readouterr().out
    assert "statistics: up to date" in printed
    assert "sensitivity: up to date" in printed
    assert printed.count("up to date") == 2
    assert (out / "gates.json").read_bytes() != first


def test_an_edited_robot_file_runs_every_step_again(work, capsys):
    robot = work / "robot.yaml"
    robot.write_text((ROOT / "config" / "robots" / "libero" / "trained_on.yaml").read_text())
    path = write_recipe(work, "robot_recipe.yaml", fakequant=False, robot="robot.yaml")
    out = run_recipe(path, work / "robot")
    first = read_sensitivity(out / "sensitivity.safetensors")
    assert first.sources["robot_sha256"] == sha256_of(robot)
    robot.write_text(robot.read_text().replace("center_crop_area: 0.9", "center_crop_area: 0.5"))
    capsys.readouterr()
    run_recipe(path, work / "robot")
    assert "up to date" not in capsys.readouterr().out
    edited = read_sensitivity(out / "sensitivity.safetensors")
    assert any(
        not np.array_equal(edited.scores[name], score) for name, score in first.scores.items()
    )


def test_a_check_of_too_few_channels_to_rank_says_so_and_the_recipe_goes_on(work):
    checked = {"probes": 1, "max_samples": 1, "check": 1}
    path = write_recipe(work, "check.yaml", sensitivity=checked, fakequant=False, bundle=False)
    agreement = json.loads((run_recipe(path, work / "check") / "summary.json").read_text())[
        "agreement"
    ]
    assert (agreement["count"], agreement["rank_correlation"]) == (1, None)
    assert agreement["ratio"] > 0


def test_scales_that_the_bundle_would_round_are_refused_before_the_first_step(work):
    wide = {"scheme": {"scale_dtype": "float32"}, "export": {"compute_dtype": "float16"}}
    with pytest.raises(QvlaError, match=r"scheme\.scale_dtype"):
        run_recipe(write_recipe(work, "wide.yaml", **wide), work / "wide")
    assert not (work / "wide").exists()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"gates": {"target_avg_bits": 5.0, "bits": [1]}}, r"^bits: got \[1\]"),
        (
            {
                "gates": {"target_avg_bits": 5.0, "bits": [2, 4, 8, 16]},
                "sensitivity": {"bits": [4, 8]},
            },
            r"^bits: got \[2\]",
        ),
        (
            {"gates": {"target_avg_bits": 0.5, "bits": [4, 8]}},
            r"^target_avg_bits: got 0.5; expected at least \d\.\d+",
        ),
        (
            {
                "gates": {"target_avg_bits": 5.0, "bits": [2, 3, 8]},
                "sensitivity": {"bits": [2, 3, 8]},
            },
            r"^bits: got \[3\]; expected widths that the engines hold: 0, 2, 4, 8, 16",
        ),
        (
            {"gates": {"target_avg_bits": 5.0, "layer_bits": "nowhere.*=8"}},
            r"^layer_bits: got nowhere\.\*=8, whose pattern is no layer's",
        ),
        ({"gates": {"target_avg_bits": 5.0, "joint_rounds": -1}}, "^joint_rounds: got -1"),
        (
            {
                "gates": {"target_avg_bits": 5.0, "joint_rounds": 1},
                "sensitivity": {"method": "hessian"},
            },
            "^joint_rounds: got 1 with hessian/optimal",
        ),
        ({"export": {"tile": 0}}, "tile: got .*0; expected .*1 row"),
        ({"export": {"guessed": True}}, "^guessed: got true for a checkpoint of OpenVLA-OFT"),
        (
            {"export": {"ensemble": True}, "bundle": False, "float_bundle": True},
            "^ensemble: got true for a checkpoint of OpenVLA-OFT",
        ),
        ({"unnorm_key": "elsewhere"}, "elsewhere"),
    ],
)
def test_what_a_later_step_would_refuse_is_refused_before_the_first_one(work, changes, named):
    path = write_recipe(work, "later.yaml", **changes)
    with pytest.raises(QvlaError, match=named):
        run_recipe(path, work / "later")
    assert not (work / "later").exists()


def test_options_of_export_do_not_matter_where_no_bundle_is_asked_for(work):
    path = write_recipe(work, "none.yaml", export={"guessed": True}, bundle=False, fakequant=False)
    assert (run_recipe(path, work / "none") / "gates.json").is_file()


@pytest.mark.parametrize("bits", [(4, 8), (0, 4)])
@pytest.mark.parametrize("cost", ["nominal", "stored"])
def test_a_budget_too_small_is_refused_before_the_scores_as_it_is_after_them(work, bits, cost):
    model = load_checkpoint(work / "checkpoint").model
    scheme = QuantizationScheme(16)
    shapes = target_shapes(work / "checkpoint")
    scores = {name: np.ones((2, rows), np.float32) for name, (rows, _) in shapes.items()}
    columns = {name: width for name, (_, width) in shapes.items()}
    scored = Sensitivity("action", bits, scores, columns, tuple(unexecuted_targets(model)))
    budget = Budget(0.25, bits, cost=cost, tile=1)
    messages = []
    for refused in (
        lambda: require_affordable(model, budget, scheme, "action", bits, 0),
        lambda: assign_gates(scored, budget, scheme),
    ):
        try:
            refused()
        except QvlaError as error:
            messages.append(str(error))
    assert messages == [] if 0 in bits else len(messages) == 2
    assert len(set(messages)) < 2


@pytest.mark.parametrize(
    "wrong", [{"tile": 0}, {"compute_dtype": "int8"}, {"guessed": True}, {"ensemble": True}]
)
def test_options_of_export_are_refused_in_the_words_of_export(work, wrong):
    asked = ExportOptions(**wrong)
    with pytest.raises(QvlaError) as before:
        require_exportable(load_checkpoint(work / "checkpoint"), LIBERO, asked)
    with pytest.raises(QvlaError, match=f"^{re.escape(str(before.value))}$"):
        export_bundle(work / "checkpoint", None, work / "refused", options=asked)
