"""The whole way, by the verbs and by the recipe, on a tiny random checkpoint."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from qvla_offline.checkpoints.io import load_checkpoint
from qvla_offline.checkpoints.random_checkpoint import write_random_checkpoint
from qvla_offline.checkpoints.targets import quantization_targets, unexecuted_targets
from qvla_offline.export.bundle import export_bundle
from qvla_offline.export.exportable import require_exportable
from qvla_offline.export.options import ExportOptions
from qvla_offline.fakequant import target_shapes
from qvla_offline.gates import Pricing, read_gates, uniform
from qvla_offline.gates.assign import assign_gates
from qvla_offline.gates.foresight import require_affordable
from qvla_offline.gates.options import Budget, GatesOptions
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_offline.recipe import Recipe, read_recipe, run_recipe
from qvla_offline.robot import LIBERO
from qvla_offline.sensitivity import run
from qvla_offline.sensitivity.hessian import hessian_scores
from qvla_offline.sensitivity.options import Scoring
from qvla_offline.sensitivity.store import Sensitivity, read_sensitivity
from qvla_ros.bundle import load_bundle, sha256_of
from qvla_ros.cli.main import main
from qvla_ros.errors import QvlaError

ROOT = Path(__file__).parents[3]
SAMPLES = 2


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A directory with a tiny checkpoint and a calibration file."""
    folder = tmp_path_factory.mktemp("work")
    write_random_checkpoint(folder / "checkpoint")
    generator = np.random.default_rng(0)
    lines = []
    for index in range(SAMPLES):
        for view in ("image", "wrist_image"):
            Image.fromarray(generator.integers(0, 255, (32, 32, 3), np.uint8)).save(
                folder / f"{view}{index}.png"
            )
        paths = {view: f"{view}{index}.png" for view in ("image", "wrist_image")}
        state = generator.uniform(-0.4, 0.4, 8).tolist()
        lines.append(
            json.dumps({"text": "pick up the milk" + " now" * index, **paths, "proprio": state})
        )
    (folder / "calibration.jsonl").write_text("\n".join(lines))
    return folder


def recipe(**changes) -> dict:
    return {
        "checkpoint": "checkpoint",
        "calibration": "calibration.jsonl",
        "out_dir": "out",
        "sensitivity": {"probes": 1, "max_samples": SAMPLES},
        "gates": {"target_avg_bits": 5.0, "cost": "stored"},
        "scheme": {"group_size": 16},
        "fakequant": True,
    } | changes


def write_recipe(folder, name: str, **changes):
    path = folder / name
    path.write_text(yaml.safe_dump(recipe(**changes)))
    return path


def test_the_example_names_every_key_that_a_recipe_may_have():
    def keys(kind: type) -> set[str]:
        return {each.name for each in fields(kind)}

    example = yaml.safe_load((ROOT / "config" / "quantize" / "reference.yaml").read_text())
    assert set(example) == keys(Recipe)
    kinds = {
        "sensitivity": Scoring,
        "gates": GatesOptions,
        "scheme": QuantizationScheme,
        "export": ExportOptions,
    }
    for section, kind in kinds.items():
        assert set(example[section]) == keys(kind), section


def test_recipe_makes_a_bundle_within_its_budget_and_a_checkpoint_with_its_numbers(work, capsys):
    checked = {"probes": 1, "max_samples": SAMPLES, "check": 8}
    budget = {"target_avg_bits": 5.0, "cost": "stored", "joint_rounds": 1}
    path = write_recipe(work, "one.yaml", sensitivity=checked, gates=budget)
    out = run_recipe(path, work / "one")
    bundle = load_bundle(out / "bundle")
    assert bundle.quantization.stored_bits_per_weight <= 5.0
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
    assert capsys.readouterr().out.count("up to date") == 4


def test_a_changed_budget_runs_gates_and_bundle_again_but_not_the_sensitivity(work, capsys):
    out = run_recipe(write_recipe(work, "two.yaml", fakequant=False), work / "two")
    first = (out / "gates.json").read_bytes()
    capsys.readouterr()
    changed = write_recipe(work, "two.yaml", fakequant=False, gates={"target_avg_bits": 6.0})
    run_recipe(changed, work / "two")
    assert capsys.readouterr().out.count("up to date") == 1
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


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"chekpoint": "x"}, r"chekpoint.*one of .*checkpoint"),
        ({"gates": {"target_avg_bits": 5.0, "cots": "stored"}}, r"gates\.cots.*cost"),
        ({"gates": {}}, r"gates\.target_avg_bits"),
        ({"gates": {"target_avg_bits": "five"}}, r"gates\.target_avg_bits"),
        ({"sensitivity": {"method": "guess"}}, r"sensitivity\.method"),
        ({"scheme": {"group_size": 48}}, r"^bad\.yaml\.scheme\.group_size: got 48"),
        ({"sensitivity": {"refine": -1}}, r"^bad\.yaml\.sensitivity\.refine: got -1"),
    ],
)
def test_a_wrong_recipe_is_refused_naming_the_key(work, changes, named):
    with pytest.raises(QvlaError, match=named):
        read_recipe(write_recipe(work, "bad.yaml", **changes))


def test_the_fix_of_a_wrong_recipe_names_the_section_and_no_option_of_the_command_line(work):
    with pytest.raises(QvlaError) as caught:
        read_recipe(write_recipe(work, "bad.yaml", sensitivity={"refine": -1}))
    assert caught.value.fix == "in section sensitivity: leave out refine, or raise it"


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


def test_the_bundled_recipe_is_valid():
    read_recipe(ROOT / "config" / "quantize" / "reference.yaml")


def test_the_four_released_steps_have_their_counterparts(work, capsys):
    """sensitivity -> gates -> fakequant under the released option names.

    The released .pt and the greedy are included.
    """
    source = str(work / "checkpoint")
    lines = str(work / "calibration.jsonl")
    proxy = str(work / "proxy.pt")
    gates = str(work / "gates.json")
    out = str(work / "fake")
    common = ["--pretrained_checkpoint", source, "--calib_jsonl", lines, "--out_path", proxy]
    assert (
        main(
            [
                "sensitivity",
                "--method",
                "hessian",
                "--bits",
                "0,2,4,8",
                "--max_samples",
                "2",
                *common,
            ]
        )
        == 0
    )
    document = torch.load(proxy, weights_only=True)
    assert list(document) == list(target_shapes(source))
    assert set(next(iter(document.values()))) == {"proxy_0", "proxy_2", "proxy_4", "proxy_8"}
    released = [
        "gates",
        "--proxy_pt",
        proxy,
        "--out_json",
        gates,
        "--target_avg_bits",
        "4.0",
        "--method",
        "released",
    ]
    assert main(released) == 0
    means = read_gates(gates)
    assert np.concatenate(list(means.layers.values())).mean() <= 4.0
    assert (
        main(
            [
                "fakequant",
                "--pretrained_checkpoint",
                source,
                "--gates_path",
                gates,
                "--out_dir",
                out,
            ]
        )
        == 0
    )
    assert main([*released[:-1], "optimal"]) == 0
    beside = read_gates(gates)
    (work / "proxy.pt.json").unlink()
    assert main([*released[:-1], "optimal"]) == 2  # a .pt alone does not say how long the rows are
    assert main([*released[:-1], "optimal", "--pretrained_checkpoint", source]) == 0
    alone = read_gates(gates)
    measured = ["--pretrained_checkpoint", source, "--calib_jsonl", lines, "--joint_rounds", "1"]
    assert main([*released[:-1], "optimal", *measured]) == 2  # nor in which units its scores are
    assert (
        set(alone.not_executed)
        == set(beside.not_executed)
        == unexecuted_targets(load_checkpoint(source).model)
    )
    assert all(np.array_equal(alone.layers[name], bits) for name, bits in beside.layers.items())
    bundle = load_bundle(export_bundle(source, gates, work / "from_pt"))
    reached = alone.budget["nominal_bits_per_weight"]
    assert bundle.quantization.nominal_bits_per_weight == pytest.approx(reached, abs=1e-4)


def test_hessian_and_action_files_cover_every_target_and_name_those_that_never_run(work):
    common = [
        "--pretrained_checkpoint",
        str(work / "checkpoint"),
        "--calib_jsonl",
        str(work / "calibration.jsonl"),
    ]
    model = load_checkpoint(work / "checkpoint").model
    for method in ("hessian", "action"):
        path = work / f"{method}.safetensors"
        arguments = [
            "sensitivity",
            "--method",
            method,
            "--probes",
            "1",
            "--out_path",
            str(path),
            *common,
        ]
        assert main(arguments) == 0
        found = read_sensitivity(path)
        assert list(found.scores) == list(quantization_targets(model))
        assert set(found.not_executed) == unexecuted_targets(model)
        assert all(score.any() for score in found.executed().values())
        first = path.read_bytes()
        assert main([*arguments, "--resume"]) == 0
        assert path.read_bytes() == first
    wrong_bits = [
        "--method",
        "hessian",
        "--bits",
        "4",
        "--out_path",
        str(work / "hessian.safetensors"),
        "--resume",
    ]
    assert main(["sensitivity", *wrong_bits, *common]) == 2


@pytest.mark.parametrize("name", ["stopped.safetensors", "stopped.pt"])
def test_a_hessian_run_that_stops_leaves_no_result_and_goes_on_where_it_was(
    work, monkeypatch, name
):
    path = work / name
    partial = path.with_name(f"{name}.partial")
    arguments = [
        "sensitivity",
        "--pretrained_checkpoint",
        str(work / "checkpoint"),
        "--max_samples",
        "1",
    ]
    arguments += [
        "--calib_jsonl",
        str(work / "calibration.jsonl"),
        "--bits",
        "4",
        "--out_path",
        str(path),
    ]
    hessian = [*arguments, "--method", "hessian"]
    assert main(hessian) == 0
    whole = read_sensitivity(path)
    path.unlink()
    asked: list[int] = []

    def scores(policy, targets, *rest):
        asked.append(len(targets))
        groups = hessian_scores(policy, targets, *rest)
        yield from groups if len(asked) > 1 else itertools.islice(groups, 3)
        if len(asked) == 1:
            raise QvlaError("layer", "NaN", "finite numbers", "none")

    monkeypatch.setattr(run, "hessian_scores", scores)
    assert main(hessian) == 2
    assert not path.exists()
    assert 0 < len(read_sensitivity(partial).scores) < len(whole.scores)
    assert main([*arguments, "--resume"]) == 2  # the other method does not go on from these
    assert main([*hessian, "--resume"]) == 0
    assert asked[1] < asked[0]
    assert not partial.exists()
    again = read_sensitivity(path)
    assert list(again.scores) == list(whole.scores)
    assert again.not_executed == whole.not_executed
    assert all(np.array_equal(again.scores[layer], score) for layer, score in whole.scores.items())


def test_a_pt_is_resumed_only_with_the_inputs_it_was_made_from(work, capsys):
    path = work / "resumed.pt"
    arguments = [
        "sensitivity",
        "--method",
        "hessian",
        "--pretrained_checkpoint",
        str(work / "checkpoint"),
    ]
    arguments += [
        "--calib_jsonl",
        str(work / "calibration.jsonl"),
        "--out_path",
        str(path),
        "--bits",
        "4",
    ]
    assert main(arguments) == 0
    first = read_sensitivity(path)
    assert main([*arguments, "--resume"]) == 0
    again = read_sensitivity(path)
    assert again.not_executed == first.not_executed
    assert all(np.array_equal(again.scores[name], score) for name, score in first.scores.items())
    assert main([*arguments, "--resume", "--max_samples", "1"]) == 2
    (work / "resumed.pt.json").unlink()
    capsys.readouterr()
    assert main([*arguments, "--resume"]) == 2
    assert "resumed.pt.json" in capsys.readouterr().err


def test_gates_may_choose_by_default_among_the_bits_that_are_scored(work):
    gates = work / "default_bits.json"
    common = [
        "--pretrained_checkpoint",
        str(work / "checkpoint"),
        "--calib_jsonl",
        str(work / "calibration.jsonl"),
    ]
    scored = [
        "--method",
        "hessian",
        "--bits",
        "4,8",
        "--max_samples",
        "1",
        "--out_path",
        str(work / "four_eight.pt"),
    ]
    assert main(["sensitivity", *scored, *common]) == 0
    asked = [
        "--proxy_pt",
        str(work / "four_eight.pt"),
        "--target_avg_bits",
        "6",
        "--out_json",
        str(gates),
    ]
    assert main(["gates", *asked]) == 0
    assert set(read_gates(gates).histogram()) <= {4, 8, 16}


def test_refined_channels_carry_measured_scores(work):
    common = [
        "--pretrained_checkpoint",
        str(work / "checkpoint"),
        "--calib_jsonl",
        str(work / "calibration.jsonl"),
    ]
    scores = []
    for refine in ("0", "2"):
        path = work / f"refine{refine}.safetensors"
        arguments = ["--bits", "4", "--probes", "1", "--refine", refine, "--out_path", str(path)]
        assert main(["sensitivity", *arguments, *common]) == 0
        scores.append(read_sensitivity(path).scores)
    changed = sum(int((scores[0][name] != scores[1][name]).sum()) for name in scores[0])
    assert changed == 2


@pytest.mark.parametrize(
    ("bits", "dtype"), [(4, "float32"), (8, "float16"), (2, "float16"), (16, "float32")]
)
def test_priced_bits_equal_what_the_graph_holds(work, bits, dtype):
    shapes = target_shapes(work / "checkpoint")
    gates = uniform({name: rows for name, (rows, _) in shapes.items()}, bits)
    scheme = QuantizationScheme(16)
    bundle = load_bundle(
        export_bundle(work / "checkpoint", gates, work / "priced", scheme, ExportOptions(dtype))
    )
    idle = unexecuted_targets(load_checkpoint(work / "checkpoint").model)
    columns = {name: width for name, (_, width) in shapes.items() if name not in idle}
    priced = Pricing(scheme, "stored", dtype).bits_per_weight(gates.layers, columns)
    assert bundle.quantization.stored_bits_per_weight == pytest.approx(priced, abs=1e-4)
