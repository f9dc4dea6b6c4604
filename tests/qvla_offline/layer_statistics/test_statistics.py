"""Hessians of a small checkpoint's layers: what they hold, and how a run goes on."""

from __future__ import annotations

import json

import pytest
import torch

from qvla_offline.blockwise.passes import Blockwise
from qvla_offline.blockwise.weights import ResidentWeights
from qvla_offline.calibration import read_calibration
from qvla_offline.checkpoints.io import load_checkpoint
from qvla_offline.checkpoints.random_checkpoint import write_random_checkpoint
from qvla_offline.checkpoints.targets import quantization_targets, unexecuted_targets
from qvla_offline.layer_statistics.gather import gather_statistics, input_rows, output_rows
from qvla_offline.quantization.stored_statistics import INDEX, StoredStatistics
from qvla_offline.sensitivity.action import Probing
from qvla_offline.sensitivity.inputs import load_inputs
from qvla_offline.sensitivity.options import SensitivityOptions
from qvla_ros.cli.main import main
from qvla_ros.errors import QvlaError, QvlaWarning
from tests.support.observations import write_observations


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("statistics")
    write_random_checkpoint(folder / "tiny")
    write_observations(folder / "data", 3, seed=5)
    write_observations(folder / "data", 40, seed=6)
    assert gather(folder, "whole") == 0
    return folder


def gather(place, name: str, *more: str) -> int:
    paths = ["--pretrained_checkpoint", place / "tiny", "--out_dir", place / name]
    paths += ["--calib_jsonl", place / "data" / "set_5.jsonl"]
    return main(["statistics", *map(str, paths), *more])


def test_every_layer_that_runs_has_the_sums_of_its_inputs(place):
    stored = StoredStatistics(place / "whole")
    checkpoint = load_checkpoint(place / "tiny")
    targets = quantization_targets(checkpoint.model)
    assert set(stored) == set(targets) - unexecuted_targets(checkpoint.model)
    name = next(name for name in stored if name.endswith("mlp.fc1"))
    seen = []
    targets[name].register_forward_hook(lambda module, given, output: seen.append(given[0]))
    for sample in read_calibration(place / "data" / "set_5.jsonl", checkpoint):
        checkpoint.model(sample)
    x = torch.cat([rows.reshape(-1, rows.shape[-1]) for rows in seen])
    found = stored[name]
    assert found.samples == len(x)
    assert torch.allclose(found.input_hessian, x.T @ x, rtol=1e-3, atol=1e-3)
    assert torch.allclose(found.input_mean, x.mean(dim=0), rtol=1e-3, atol=1e-4)
    assert torch.allclose(found.input_magnitude, x.abs().mean(dim=0), rtol=1e-3, atol=1e-5)
    assert torch.allclose(found.input_maximum, x.abs().amax(dim=0), rtol=1e-3, atol=1e-5)
    eigenvalues = torch.linalg.eigvalsh(found.gradient_weighted_hessian.double())
    assert eigenvalues.min() > -1e-6 * eigenvalues.max()
    assert eigenvalues.max() > 0


def test_the_rows_of_a_convolution_are_its_patches_in_the_order_of_its_outputs():
    conv = torch.nn.Conv2d(3, 5, kernel_size=2, stride=2)
    x = torch.randn(2, 3, 4, 6)
    product = input_rows(conv, x) @ conv.weight.flatten(1).T + conv.bias
    assert torch.allclose(product, output_rows(conv, conv(x)), atol=1e-5)


def test_an_interrupted_run_goes_on_and_leaves_the_same_numbers(place, monkeypatch):
    from qvla_offline.quantization.stored_statistics import StatisticsWriter

    kept = StatisticsWriter.save

    def save(self, block, layers):
        if len(self.finished()) == 2:
            raise KeyboardInterrupt
        kept(self, block, layers)

    monkeypatch.setattr(StatisticsWriter, "save", save)
    assert gather(place, "again") == 130
    assert not (place / "again" / "statistics.json").exists()
    monkeypatch.setattr(StatisticsWriter, "save", kept)
    assert gather(place, "again") == 0
    first = StoredStatistics(place / "whole")
    second = StoredStatistics(place / "again")
    assert set(first) == set(second)
    for name in first:
        assert torch.equal(first[name].input_hessian, second[name].input_hessian)
        guided = [s[name].gradient_weighted_hessian for s in (first, second)]
        assert torch.equal(*guided)


def test_a_directory_of_other_settings_is_replaced(place):
    assert gather(place, "other", "--seed", "1") == 0
    assert gather(place, "other") == 0
    index = json.loads((place / "other" / "statistics.json").read_text())
    assert index["settings"]["seed"] == 0
    assert len(StoredStatistics(place / "other")) == len(StoredStatistics(place / "whole"))


def test_an_unfinished_directory_is_refused(place):
    (place / "empty").mkdir()
    with pytest.raises(QvlaError, match="qvla statistics"):
        StoredStatistics(place / "empty")


def test_compensation_lowers_the_error_of_the_actions(place):
    out = place / "error.json"
    arguments = ["--pretrained_checkpoint", place / "tiny", "--out_json", out]
    arguments += ["--observations", place / "data" / "set_6.jsonl", "--uniform", "4"]
    errors = {}
    for quantizer in ("rtn", "clip_search", "gptq", "guided_gptq", "awq", "smoothquant"):
        options = ["--quantizer", quantizer, "--statistics", place / "whole"]
        assert main(["error", *map(str, [*arguments, *options])]) == 0
        (line,) = json.loads(out.read_text())["results"]
        errors[quantizer] = line["measured_error"]["mean"]
    assert errors["gptq"] < errors["clip_search"]
    assert errors["guided_gptq"] < errors["clip_search"]
    assert errors["awq"] < errors["rtn"]


def test_without_statistics_a_compensating_quantizer_is_refused(place, capsys):
    arguments = ["--pretrained_checkpoint", place / "tiny", "--uniform", "4", "--quantizer", "gptq"]
    arguments += ["--observations", place / "data" / "set_6.jsonl"]
    assert main(["error", *map(str, arguments)]) == 2
    assert "no input_hessian" in capsys.readouterr().err


def test_statistics_of_the_observations_themselves_are_refused(place, capsys):
    arguments = ["--pretrained_checkpoint", place / "tiny", "--uniform", "4"]
    arguments += ["--observations", place / "data" / "set_5.jsonl", "--statistics", place / "whole"]
    assert main(["error", *map(str, arguments)]) == 2
    assert "a calibration set of these gates or statistics" in capsys.readouterr().err


@pytest.mark.parametrize("index", [[], {}, {"schema_version": 99}, {"schema_version": None}])
def test_a_directory_of_another_layout_is_refused(tmp_path, index):
    (tmp_path / INDEX).write_text(json.dumps(index))
    with pytest.raises(QvlaError, match="another layout"):
        StoredStatistics(tmp_path)


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_inputs_that_are_not_finite_are_named_and_nothing_is_kept(broken):
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 2))
    policy = Blockwise(lambda x: model(x), ResidentWeights(torch.nn.ModuleList([model])))
    kept = []
    with pytest.raises(QvlaError, match=r"^hessian of first: got (NaN|infinity); .*calibration"):
        gather_statistics(
            policy,
            {"first": model[0]},
            [torch.tensor([[1.0, broken, 0.0, 1.0]])],
            Probing((), 1),
            lambda block, found: kept.append(block),
        )
    assert kept == []


def test_so_few_observations_that_they_say_little_are_taken_with_a_warning(place):
    options = SensitivityOptions()
    with pytest.warns(
        QvlaWarning, match=r"^calibration: .*set_5\.jsonl gives 3, expected 8 or more"
    ):
        load_inputs(place / "tiny", place / "data" / "set_5.jsonl", options)


def test_an_empty_calibration_set_is_refused(place, capsys):
    (place / "data" / "empty.jsonl").write_text("\n")
    paths = ["--pretrained_checkpoint", place / "tiny", "--out_dir", place / "nothing"]
    more = ["--calib_jsonl", place / "data" / "empty.jsonl"]
    assert main(["statistics", *map(str, [*paths, *more])]) == 2
    assert "no usable line" in capsys.readouterr().err
