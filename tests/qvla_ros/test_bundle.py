"""A bundle is whole and unchanged, or it is refused with the key, the value, what was expected and
the fix.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qvla_ros.bundle import Manifest, load_bundle, save_bundle
from qvla_ros.errors import QvlaError


@pytest.fixture
def own_bundle(make_bundle: Callable[[Path], Path], tmp_path: Path) -> Path:
    """A bundle that this test may break."""
    return make_bundle(tmp_path / "bundle")


def _edit(directory: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = directory / "bundle.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_a_saved_bundle_loads_as_it_was(own_bundle: Path, manifest: Manifest) -> None:
    bundle = load_bundle(own_bundle)
    assert bundle.cameras == manifest.cameras
    assert bundle.actions == manifest.actions
    assert bundle.quantization == manifest.quantization
    assert set(bundle.files) == {"policy.onnx", "tokenizer.json", "statistics.json"}
    assert bundle.statistics["action"].mask.tolist() == [True] * 6 + [False]
    assert len(bundle.bundle_id) == 16


def test_equal_content_has_equal_identity_wherever_it_lies(
    make_bundle: Callable, tmp_path: Path
) -> None:
    ids = {load_bundle(make_bundle(tmp_path / name)).bundle_id for name in ("a", "b")}
    assert len(ids) == 1


def test_engines_are_not_part_of_the_identity(own_bundle: Path) -> None:
    before = load_bundle(own_bundle).bundle_id
    (own_bundle / "engines").mkdir()
    (own_bundle / "engines" / "some.plan").write_bytes(b"built for this machine")
    assert load_bundle(own_bundle).bundle_id == before


def test_another_specification_is_another_bundle(
    own_bundle: Path, manifest: Manifest, tmp_path: Path
) -> None:
    files = {
        name: own_bundle / name for name in ("policy.onnx", "tokenizer.json", "statistics.json")
    }
    slower = replace(manifest, actions=replace(manifest.actions, control_period_s=0.1))
    assert (
        save_bundle(tmp_path / "other", slower, files).bundle_id
        != load_bundle(own_bundle).bundle_id
    )


@pytest.mark.parametrize("name", ["policy.onnx", "tokenizer.json", "statistics.json"])
def test_a_missing_file_is_named(own_bundle: Path, name: str) -> None:
    (own_bundle / name).unlink()
    with pytest.raises(QvlaError, match=rf"{name}.*no such file.*Fix: copy the bundle again"):
        load_bundle(own_bundle)


@pytest.mark.parametrize("name", ["policy.onnx", "tokenizer.json", "statistics.json"])
def test_one_changed_byte_is_noticed(own_bundle: Path, name: str) -> None:
    content = bytearray((own_bundle / name).read_bytes())
    content[-2] ^= 1
    (own_bundle / name).write_bytes(content)
    with pytest.raises(QvlaError, match=rf"{name}: got SHA-256"):
        load_bundle(own_bundle)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: c.update(schema_version=2),
            r"schema_version: got 2; expected 1\. Fix: .*release",
        ),
        (lambda c: c.pop("schema_version"), "schema_version: got None"),
        (lambda c: c.update(extra=1), r"bundle\.json\.extra: got an unknown key"),
        (lambda c: c.pop("prompt"), r"bundle\.json\.prompt: got nothing"),
        (
            lambda c: c["actions"].update(chunk_length="8"),
            r"actions\.chunk_length: got '8'; expected an integer",
        ),
        (
            lambda c: c["actions"].update(chunk_length=True),
            r"actions\.chunk_length: got True; expected an integer",
        ),
        (
            lambda c: c["actions"].update(chunk_length=0),
            r"actions\.chunk_length: got 0; expected 1 to",
        ),
        (lambda c: c["actions"].update(control_period_s=-0.1), r"control_period_s: got -0\.1"),
        (
            lambda c: c["actions"].update(gripper_index=None),
            "gripper_convention: got opening_fraction",
        ),
        (lambda c: c["actions"].update(normalization="minmax"), "expected one of 'q99', 'bounds'"),
        (lambda c: c["actions"]["units"].pop(), "units.*expected 7 units"),
        (lambda c: c["cameras"][0].update(name="a/b"), r"name: got a/b"),
        (lambda c: c["cameras"][1].update(name="agentview"), "cameras: .*distinct names"),
        (lambda c: c["cameras"][0]["normalizations"][0].pop(), r"normalizations\[0\]: .*length 2"),
        (lambda c: c["prompt"].update(template="go"), r"prompt\.template.*\{instruction\}"),
        (lambda c: c["files"].update({"../evil": "00"}), r"files: got \.\./evil"),
        (lambda c: c["files"].pop("policy.onnx"), r"no policy\.onnx"),
        (lambda c: c["actions"].update(control_period_s=0.1), "bundle_id: got"),
    ],
)
def test_a_wrong_manifest_is_refused_by_key(
    own_bundle: Path, change: Callable, message: str
) -> None:
    _edit(own_bundle, change)
    with pytest.raises(QvlaError, match=message):
        load_bundle(own_bundle)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema_version": NaN}', "\x00"])
def test_a_manifest_that_is_not_json_is_refused(own_bundle: Path, text: str) -> None:
    (own_bundle / "bundle.json").write_text(text)
    with pytest.raises(QvlaError, match=r"bundle\.json"):
        load_bundle(own_bundle)


def test_no_bundle_at_all_names_the_commands_that_make_one(tmp_path: Path) -> None:
    for directory in (tmp_path / "absent", tmp_path):
        with pytest.raises(QvlaError, match="qvla export"):
            load_bundle(directory)


def test_statistics_of_another_size_never_become_a_bundle(
    own_bundle: Path, manifest: Manifest, tmp_path: Path
) -> None:
    statistics = json.loads((own_bundle / "statistics.json").read_text())
    statistics["action"]["q99"].pop()
    (tmp_path / "statistics.json").write_text(json.dumps(statistics))
    files = {name: own_bundle / name for name in ("policy.onnx", "tokenizer.json")}
    with pytest.raises(QvlaError, match=r"action\.q99: got 6 numbers; expected 7"):
        save_bundle(
            tmp_path / "new", manifest, {**files, "statistics.json": tmp_path / "statistics.json"}
        )
    assert not (tmp_path / "new").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".new")]
