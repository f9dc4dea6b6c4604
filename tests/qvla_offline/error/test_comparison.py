"""`qvla error` on a small checkpoint: what it measures, and what it refuses."""

from __future__ import annotations

import json

import pytest

from qvla_offline.checkpoints.random_checkpoint import write_random_checkpoint
from qvla_ros.cli.main import main
from tests.support.observations import error


@pytest.mark.filterwarnings("ignore::qvla_ros.errors.QvlaWarning")
def test_gates_bundle_and_fake_quantized_checkpoint_have_one_error(place, capsys):
    out = place / "error.json"
    paths = [f"mixed={place / 'gates.json'}", "--bundle", f"graph={place / 'bundle'}"]
    paths += ["--fakequant", f"file={place / 'fakequant'}", "--uniform", "4,16"]
    assert error(place, "--gates_path", *paths, "--out_json", out, "--group_size", 16) == 0
    found = {line["name"]: line for line in json.loads(out.read_text())["results"]}
    assert list(found) == ["uniform 4 bits", "uniform 16 bits", "mixed", "file", "graph"]
    of = {name: line["measured_error"]["mean"] for name, line in found.items()}
    assert of["mixed"] > 1e-9
    assert of["graph"] == pytest.approx(of["mixed"], rel=1e-2)
    assert of["file"] == pytest.approx(of["mixed"], rel=0.05)  # restored to float16
    assert of["uniform 16 bits"] < 1e-3 * of["mixed"]
    bits = {name: line["bits_per_weight"] for name, line in found.items()}
    assert bits["graph"]["nominal"] == pytest.approx(bits["mixed"]["nominal"], abs=1e-3)
    assert bits["graph"]["stored"] == pytest.approx(bits["mixed"]["stored"], rel=0.02)
    # one scale of 16 bits for 16 inputs
    assert bits["uniform 4 bits"]["nominal"] == pytest.approx(5.0, abs=0.02)
    error_of_mixed = found["mixed"]["measured_error"]
    assert (error_of_mixed["observations"], error_of_mixed["episodes"]) == (12, 6)
    shown = capsys.readouterr().out
    assert "12 observations of 6 episodes" in shown
    assert all(name in shown for name in found)


@pytest.mark.filterwarnings("ignore::qvla_ros.errors.QvlaWarning")
def test_3_bits_and_whole_rows_are_measured_and_have_no_stored_bits(place):
    out = place / "three.json"
    assert error(place, "--uniform", "2,3,4", "--group_size", 0, "--out_json", out) == 0
    lines = json.loads(out.read_text())["results"]
    errors = [line["measured_error"]["mean"] for line in lines]
    assert errors == sorted(errors, reverse=True)
    assert [list(line["bits_per_weight"]) for line in lines] == [["nominal"]] * 3
    assert error(place, "--uniform", "3", "--group_size", 16, "--out_json", out) == 0
    (line,) = json.loads(out.read_text())["results"]
    assert line["bits_per_weight"] == {"nominal": pytest.approx(4.0, abs=0.02)}


@pytest.mark.filterwarnings("ignore::qvla_ros.errors.QvlaWarning")
def test_the_same_run_gives_the_same_numbers(place):
    results = []
    for name in ("first.json", "second.json"):
        assert error(place, "--uniform", "2", "--out_json", place / name) == 0
        results.append((place / name).read_bytes())
    assert results[0] == results[1]


@pytest.mark.filterwarnings("ignore::qvla_ros.errors.QvlaWarning")
@pytest.mark.parametrize(
    ("options", "key"),
    [
        ((), "gates_path, uniform, bundle and fakequant"),
        (("--gates_path", "a=gates.json", "a=other.json"), "gates_path, uniform, bundle"),
        (("--uniform", "5"), "uniform\n  got:      5"),
        (("--gates_path", "absent.json"), "gates_path"),
        (("--bundle", "absent"), "bundle"),
    ],
)
def test_bad_input_is_refused_by_its_key(place, options, key, capsys):
    assert error(place, *options) == 2
    assert capsys.readouterr().err.startswith(f"error: {key}")


def test_gates_and_bundles_of_another_checkpoint_are_refused(place, tmp_path, capsys):
    other = write_random_checkpoint(tmp_path / "other", seed=1)
    observations = ["--observations", str(place / "held_out" / "set_1.jsonl")]
    command = ["error", "--pretrained_checkpoint", str(other), *observations]
    assert main([*command, "--gates_path", str(place / "gates.json")]) == 2
    assert "made from a checkpoint with SHA-256" in capsys.readouterr().err
    for verb in ("fakequant", "export"):
        words = [verb, "--pretrained_checkpoint", str(other), "--out_dir", str(tmp_path / verb)]
        assert main([*words, "--gates_path", str(place / "gates.json")]) == 2
        printed = capsys.readouterr().err
        assert printed.startswith("error: gates\n")
        assert "made from a checkpoint with SHA-256" in printed
        assert not (tmp_path / verb).exists()
    assert main([*command, "--bundle", str(place / "bundle")]) == 2
    assert f"error: bundle {place / 'bundle'}" in capsys.readouterr().err
