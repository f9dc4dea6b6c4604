"""What is given in place of a checkpoint directory is named, with what makes one of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from qvla_offline.checkpoints.io import load_checkpoint
from qvla_offline.checkpoints.random_checkpoint import write_random_checkpoint
from qvla_offline.checkpoints.stored import INDEX, SINGLE_FILE
from qvla_offline.datasets.jsonl_reader import lines
from qvla_offline.fingerprint import checkpoint_sha256
from qvla_ros.errors import QvlaError, QvlaWarning


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp("directory") / "tiny")


@pytest.fixture
def copy(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "copy"))


def refused(path: str | Path) -> QvlaError:
    with pytest.raises(QvlaError) as caught:
        load_checkpoint(path)
    return caught.value


def test_an_id_of_the_hub_is_told_how_to_be_downloaded(copy: Path, monkeypatch) -> None:
    assert (
        "`hf download openvla/openvla-7b --local-dir openvla-7b`"
        in refused("openvla/openvla-7b").fix
    )
    assert refused(copy / "nowhere").fix == "check the path"
    with pytest.raises(QvlaError, match="hf download"):
        checkpoint_sha256("openvla/openvla-7b")


def test_the_cache_of_a_download_is_told_its_snapshot_and_that_loads(copy: Path) -> None:
    cache = copy.parent / "models--openvla--openvla-7b"
    snapshot = cache / "snapshots" / "31f090d"
    snapshot.parent.mkdir(parents=True)
    copy.rename(snapshot)
    fix = refused(cache).fix
    load_checkpoint(fix.removeprefix("name the snapshot in it: "), lazily=True)


@pytest.mark.parametrize("named", ["", "checkpoints/latest-checkpoint.pt"])
def test_a_training_run_of_prismatic_is_told_the_converter(tmp_path: Path, named: str) -> None:
    run = tmp_path / "prism-run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.json").write_text(json.dumps({"vla": {}}))
    torch.save({"model": {}}, run / "checkpoints/latest-checkpoint.pt")
    error = refused(run / named)
    assert "Prismatic" in error.value
    assert f"--openvla_model_path_or_id {run} " in error.fix


def test_a_file_is_told_its_directory_and_weights_of_another_format_how_to_convert(
    copy: Path,
) -> None:
    fix = refused(copy / SINGLE_FILE).fix
    load_checkpoint(fix.removeprefix("name its directory: "), lazily=True)
    (copy / SINGLE_FILE).rename(copy / "pytorch_model.bin")
    assert "safe_serialization=True" in refused(copy).fix


def test_of_a_whole_file_and_an_index_the_whole_file_is_read_as_transformers_does(
    copy: Path,
) -> None:
    tensors = load_file(copy / SINGLE_FILE)
    stale = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
    save_file(stale, copy / "model-00001-of-00001.safetensors")
    index = {"weight_map": dict.fromkeys(stale, "model-00001-of-00001.safetensors")}
    (copy / INDEX).write_text(json.dumps(index))
    name = "projector.fc1.weight"
    with pytest.warns(QvlaWarning, match=f"{SINGLE_FILE} is used.*{INDEX} is not"):
        model = load_checkpoint(copy).model
    assert torch.equal(model.state_dict()[name], tensors[name].float())
    (copy / "model-00001-of-00001.safetensors").unlink()  # an index left behind by itself
    load_checkpoint(copy)


def test_a_base_model_named_by_its_id_is_told_how_to_be_downloaded(tmp_path: Path) -> None:
    config = {"r": 4, "base_model_name_or_path": "openvla/openvla-7b"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    assert "`hf download openvla/openvla-7b" in refused(tmp_path).fix


def test_an_id_of_a_dataset_is_told_how_to_be_downloaded() -> None:
    command = "`hf download lerobot/pusht --repo-type dataset --local-dir pusht`"
    with pytest.raises(QvlaError, match=command):
        list(lines(Path("lerobot/pusht")))
