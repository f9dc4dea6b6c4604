"""The steps of a quantization by their verbs, on a tiny random checkpoint."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from qvla_offline.checkpoints.io import load_checkpoint
from qvla_offline.checkpoints.targets import quantization_targets, unexecuted_targets
from qvla_offline.export.bundle import export_bundle
from qvla_offline.export.options import ExportOptions
from qvla_offline.fakequant import target_shapes
from qvla_offline.gates import Pricing, read_gates, uniform
from qvla_offline.quantization.scheme import QuantizationScheme
from qvla_offline.sensitivity import run
from qvla_offline.sensitivity.hessian import hessian_scores
from qvla_offline.sensitivity.store import read_sensitivity
from qvla_ros.bundle import load_bundle
from qvla_ros.cli.main import main
from qvla_ros.errors import QvlaError
from tests.support.tiny_recipe import write_inputs


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A directory with a tiny checkpoint and a calibration file."""
    return write_inputs(tmp_path_factory.mktemp("work"))


def qvla(verb: str, **options: object) -> int:
    """Runs a verb with `--name value` for each option."""
    return main([verb, *(str(part) for k, v in options.items() for part in (f"--{k}", v))])


def test_the_four_released_steps_have_their_counterparts(work, capsys):
    """sensitivity -> gates -> fakequant under the released option names.

    The released .pt and the greedy are included.
    """
    source = work / "checkpoint"
    lines = work / "calibration.jsonl"
    proxy = work / "proxy.pt"
    path = work / "gates.json"
    policy = {"pretrained_checkpoint": source}
    scored = {"method": "hessian", "bits": "0,2,4,8", "max_samples": 2}
    assert qvla("sensitivity", **policy, calib_jsonl=lines, out_path=proxy, **scored) == 0
    document = torch.load(proxy, weights_only=True)
    assert list(document) == list(target_shapes(source))
    assert set(next(iter(document.values()))) == {"proxy_0", "proxy_2", "proxy_4", "proxy_8"}
    spent = {"proxy_pt": proxy, "out_json": path, "target_avg_bits": 4.0}
    assert qvla("gates", **spent, method="released") == 0
    means = read_gates(path)
    assert np.concatenate(list(means.layers.values())).mean() <= 4.0
    assert qvla("fakequant", **policy, gates_path=path, out_dir=work / "fake") == 0
    optimal = spent | {"method": "optimal"}
    assert qvla("gates", **optimal) == 0
    beside = read_gates(path)
    (work / "proxy.pt.json").unlink()
    assert qvla("gates", **optimal) == 2  # a .pt alone does not say how long the rows are
    assert qvla("gates", **optimal, **policy) == 0
    alone = read_gates(path)
    measured = policy | {"calib_jsonl": lines, "joint_rounds": 1}
    assert qvla("gates", **optimal, **measured) == 2  # nor in which units its scores are
    assert (
        set(alone.not_executed)
        == set(beside.not_executed)
        == unexecuted_targets(load_checkpoint(source).model)
    )
    assert all(np.array_equal(alone.layers[name], bits) for name, bits in beside.layers.items())
    bundle = load_bundle(export_bundle(source, path, work / "from_pt"))
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
