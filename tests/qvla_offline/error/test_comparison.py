"""`qvla error` on a small checkpoint: what it measures, and what it refuses."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from qvla_offline.checkpoints.random_checkpoint import write_random_checkpoint
from qvla_offline.export.bundle import export_bundle
from qvla_offline.export.options import ExportOptions
from qvla_offline.fakequant import fake_quantize, target_shapes
from qvla_offline.fingerprint import checkpoint_sha256
from qvla_offline.gates import Gates, uniform, write_gates
from qvla_ros.cli.main import main
from qvla_ros.errors import QvlaWarning

SCHEME = {"group_size": 16}


def write_observations(folder, count: int, seed: int, **changes):
    """`count` lines with pictures and numbers that follow from `seed`; two lines an episode."""
    folder.mkdir(exist_ok=True)
    generator = np.random.default_rng(seed)
    lines = []
    for index in range(count):
        names = {"image": f"{seed}_{index}.png", "wrist_image": f"{seed}_{index}_wrist.png"}
        for name in names.values():
            pixels = generator.integers(0, 255, (24, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name)
        line = {
            "text": ("pick up the milk", "put the bowl on the plate")[index % 2],
            **names,
            "proprio": generator.normal(size=8).round(3).tolist(),
            "episode": index // 2,
        }
        lines.append(json.dumps(line | changes))
    path = folder / f"set_{seed}.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A checkpoint, gates of 2 to 8 bits for it, and all that is made of them."""
    folder = tmp_path_factory.mktemp("error")
    checkpoint = write_random_checkpoint(folder / "tiny")
    generator = np.random.default_rng(0)
    layers = {
        name: generator.choice([2, 4, 8], rows).astype(np.uint8)
        for name, (rows, _) in target_shapes(checkpoint).items()
    }
    sources = {"checkpoint_sha256": checkpoint_sha256(checkpoint)}
    gates = Gates(layers, "random", sources=sources, scheme=SCHEME)
    write_gates(folder / "gates.json", gates)
    export_bundle(checkpoint, gates, folder / "bundle", options=ExportOptions(tile=1))
    fake_quantize(checkpoint, gates, folder / "fakequant")
    write_observations(folder / "held_out", 12, seed=1)
    return folder


def error(place, *more: str, observations: str = "held_out/set_1.jsonl") -> int:
    fixed = ["--pretrained_checkpoint", str(place / "tiny")]
    return main(["error", *fixed, "--observations", str(place / observations), *map(str, more)])


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
def test_the_same_run_gives_the_same_numbers(place):
    results = []
    for name in ("first.json", "second.json"):
        assert error(place, "--uniform", "2", "--out_json", place / name) == 0
        results.append((place / name).read_bytes())
    assert results[0] == results[1]


@pytest.mark.filterwarnings("ignore::qvla_ros.errors.QvlaWarning")
def test_an_observation_that_was_calibrated_on_is_refused_whatever_file_it_lies_in(place, capsys):
    folder = place / "held_out"
    calibration = write_observations(folder, 3, seed=2)
    third = (folder / "set_1.jsonl").read_text().splitlines()[2]
    renamed = json.loads(third) | {"image": "copy.png", "episode": 99}
    shutil.copy(folder / json.loads(third)["image"], folder / "copy.png")
    assert error(place, "--uniform", "4", "--calibration", calibration) == 0
    calibration.write_text(calibration.read_text() + json.dumps(renamed) + "\n")
    assert error(place, "--uniform", "4", "--calibration", calibration) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: observations\n")
    assert "1 of 12 observations" in printed
    assert "first number 3" in printed


@pytest.mark.filterwarnings("ignore::qvla_ros.errors.QvlaWarning")
def test_the_calibration_set_beside_the_checkpoint_is_compared_without_being_named(place, capsys):
    beside = place / "tiny" / "calibration.jsonl"
    shutil.copytree(place / "held_out", place / "tiny", dirs_exist_ok=True)
    shutil.copy(place / "held_out" / "set_1.jsonl", beside)
    try:
        assert error(place, "--uniform", "4") == 2
        assert str(beside) in capsys.readouterr().err
    finally:
        beside.unlink()


def calibrated_on(place, digest: str):
    gates = uniform({name: rows for name, (rows, _) in target_shapes(place / "tiny").items()}, 4)
    path = place / "calibrated.json"
    write_gates(path, replace(gates, sources={"calibration_sha256": digest}))
    return path


@pytest.mark.filterwarnings("ignore::qvla_ros.errors.QvlaWarning")
def test_gates_that_were_calibrated_on_the_very_file_refuse_it_by_its_hash(place, capsys):
    from qvla_offline.calibration import calibration_sha256

    digest = calibration_sha256(place / "held_out" / "set_1.jsonl", 32)
    assert error(place, "--gates_path", calibrated_on(place, digest)) == 2
    assert "a calibration set of these gates" in capsys.readouterr().err


def test_gates_of_an_unknown_calibration_set_are_measured_with_a_warning(place):
    with pytest.warns(QvlaWarning, match="name it with --calibration"):
        assert error(place, "--gates_path", calibrated_on(place, "0" * 64)) == 0


def test_few_observations_are_measured_with_a_warning(place):
    with pytest.warns(QvlaWarning, match="has 12, expected 32 or more"):
        assert error(place, "--uniform", "8") == 0


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


def test_an_empty_set_is_refused(place, capsys):
    (place / "empty.jsonl").write_text("\n")
    assert error(place, "--uniform", "4", observations="empty.jsonl") == 2
    assert "no usable line" in capsys.readouterr().err


def test_gates_and_bundles_of_another_checkpoint_are_refused(place, tmp_path, capsys):
    other = write_random_checkpoint(tmp_path / "other", seed=1)
    observations = ["--observations", str(place / "held_out" / "set_1.jsonl")]
    command = ["error", "--pretrained_checkpoint", str(other), *observations]
    assert main([*command, "--gates_path", str(place / "gates.json")]) == 2
    assert "made from a checkpoint with SHA-256" in capsys.readouterr().err
    assert main([*command, "--bundle", str(place / "bundle")]) == 2
    assert f"error: bundle {place / 'bundle'}" in capsys.readouterr().err
