"""A bundle that was damaged, or put together wrongly, is refused with a QvlaError or runs.

A file that only changed is refused by its hash. What a mutated exporter might write goes on to the
checks behind the hashes: the manifest here gets the hashes of the mutated files.
"""

from __future__ import annotations

import copy
import json
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from qvla_ros.bundle import load_bundle
from qvla_ros.doctor.parity import PARITY_FILE, parity_observations, read_parity, write_parity
from qvla_ros.errors import QvlaError
from qvla_ros.policy import load_policy
from tests.support.mutated_bundles import mutate, sign


def infer(directory: Path) -> None:
    """Loads and infers once."""
    policy = load_policy(directory, "onnxruntime", threads=1)
    policy.infer(parity_observations(policy.bundle)[0])
    policy.close()


@pytest.mark.parametrize("name", ["bundle.json", "statistics.json", "tokenizer.json"])
def test_a_mutated_and_signed_bundle_runs_or_is_refused(
    name: str, bundle_dir: Path, tmp_path: Path
) -> None:
    draw = random.Random(name)
    original = json.loads((bundle_dir / "bundle.json").read_text())
    for number in range(40):
        directory = tmp_path / str(number)
        shutil.copytree(bundle_dir, directory)
        manifest = copy.deepcopy(original)
        content = mutate(json.loads((bundle_dir / name).read_text()), draw)
        if name == "bundle.json":
            manifest = content
        else:
            (directory / name).write_text(json.dumps(content))
        sign(directory, manifest)
        with suppress(QvlaError):  # any other error fails the test
            infer(directory)


def test_a_damaged_file_is_refused_by_its_hash(
    make_bundle: Callable[[Path], Path], tmp_path: Path
) -> None:
    directory = make_bundle(tmp_path / "bundle")
    draw = random.Random(0)
    for name in load_bundle(directory).files:
        whole = (directory / name).read_bytes()
        for _ in range(10):
            damaged = bytearray(whole)
            damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
            (directory / name).write_bytes(damaged[: draw.randrange(1, len(damaged) + 1)])
            with pytest.raises(QvlaError, match=f"bundle file .*{name}: got SHA-256"):
                load_bundle(directory)
        (directory / name).write_bytes(whole)


def test_cameras_of_several_sizes_for_one_graph_are_refused(
    bundle_dir: Path, tmp_path: Path
) -> None:
    directory = shutil.copytree(bundle_dir, tmp_path / "bundle")
    manifest = json.loads((directory / "bundle.json").read_text())
    manifest["cameras"][1]["input_size"] = 8
    sign(directory, manifest)
    with pytest.raises(QvlaError, match=r"cameras.input_size: got \[8, 16\]; expected one for all"):
        load_bundle(directory)


def test_a_tokenizer_that_lacks_a_token_of_its_own_rules_is_refused_when_it_is_used(
    bundle_dir: Path, tmp_path: Path
) -> None:
    for change in ({"unk_token": "absent"}, None):
        directory = shutil.copytree(bundle_dir, tmp_path / str(change))
        content = json.loads((directory / "tokenizer.json").read_text())
        if change is not None:
            content["model"] |= change
            text = "Missing .* token"
        else:
            content["post_processor"]["single"][0]["SpecialToken"]["id"] = "absent"
            text = "tokenizer.json"
        (directory / "tokenizer.json").write_text(json.dumps(content))
        sign(directory, json.loads((directory / "bundle.json").read_text()))
        with pytest.raises(QvlaError, match=text):
            infer(directory)


def test_damaged_answers_to_compare_with_are_refused_or_read_the_same(
    make_bundle: Callable[[Path], Path], tmp_path: Path
) -> None:
    policy = load_policy(make_bundle(tmp_path / "bundle"), "onnxruntime", threads=1)
    path = write_parity(policy)
    assert path.name == PARITY_FILE
    whole = path.read_bytes()
    original = read_parity(policy.bundle)
    assert original is not None
    draw = random.Random(1)
    refused = 0
    for _ in range(150):
        damaged = bytearray(whole)
        position = draw.choice((draw.randrange(len(damaged)), draw.randrange(min(200, len(whole)))))
        damaged[position : position + draw.randrange(2)] = bytes([draw.randrange(256)])
        path.write_bytes(damaged)
        try:
            found = read_parity(policy.bundle)
        except QvlaError:
            refused += 1
        else:
            assert found is not None
            assert (found.actions == original.actions).all()
    assert refused > 100
