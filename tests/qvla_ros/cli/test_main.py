"""The command line as a person meets it: overview, dashes, errors that name a fix, exit codes."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from qvla_reference.cli.main import STAGES
from qvla_ros.cli import main as cli
from qvla_ros.cli import verbs
from qvla_ros.cli.main import main
from qvla_ros.cli.verbs import VERBS
from qvla_ros.errors import QvlaError, QvlaWarning
from qvla_ros.exit_codes import BROKEN_PIPE

ROOT = Path(__file__).parents[3]
HEAVY = {"torch", "transformers", "onnx", "onnxruntime", "rclpy", "mujoco", "libero", "robosuite"}


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch):
    """Put a verb `try_it` with the given run() into the table."""

    def install(run) -> None:
        module = ModuleType("qvla_try_it")
        module.HELP = "try it"
        module.add_arguments = lambda parser: parser.add_argument("--calib_jsonl", default="none")
        module.run = run
        monkeypatch.setitem(sys.modules, "qvla_try_it", module)
        monkeypatch.setitem(cli.VERBS, "try_it", verbs.Verb("qvla_try_it", "try it"))

    return install


def test_the_overview_lists_every_verb_with_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    text = capsys.readouterr().out
    for name, entry in cli.VERBS.items():
        assert f"  {name}" in text
        assert entry.summary in text


def test_every_verb_module_is_in_the_table_and_every_entry_has_its_module() -> None:
    folders = {
        "qvla_ros.cli": ROOT / "qvla_ros" / "cli",
        "qvla_offline.cli": ROOT / "offline" / "qvla_offline" / "cli",
        "qvla_reference.cli": ROOT / "offline" / "qvla_reference" / "cli",
    }
    modules = {
        f"{package}.{path.stem}"
        for package, folder in folders.items()
        for path in folder.glob("*.py")
        if "\nHELP = " in path.read_text(encoding="utf-8")
    }
    assert modules == {entry.module for entry in (cli.VERBS | STAGES).values()}


def test_the_overview_fits_a_terminal_of_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["--help"])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_dashes_and_underscores_name_the_same_verb_and_option(verb) -> None:
    seen: list[argparse.Namespace] = []
    verb(lambda args: seen.append(args) or 0)
    assert cli.main(["try-it", "--calib-jsonl", "some-file"]) == 0
    assert cli.main(["try_it", "--calib_jsonl=a-b"]) == 0
    assert [args.calib_jsonl for args in seen] == ["some-file", "a-b"]


def test_values_and_what_follows_a_bare_double_dash_keep_their_dashes() -> None:
    assert cli.underscored(["--a-b", "-c-d", "e-f", "--", "--g-h"]) == [
        "--a_b",
        "-c-d",
        "e-f",
        "--",
        "--g-h",
    ]


def test_bad_input_is_reported_in_four_parts_and_exits_2(
    verb, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(args: argparse.Namespace) -> int:
        raise QvlaError("gates[3]", "5 bits", "4 or 8", "assign them again")

    verb(run)
    assert cli.main(["try_it"]) == 2
    text = capsys.readouterr().err
    assert [part in text for part in ("gates[3]", "5 bits", "4 or 8", "assign them again")] == [
        True
    ] * 4
    assert "Traceback" not in text


def test_a_path_that_cannot_be_written_is_named_and_exits_2(
    verb, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    verb(lambda args: (tmp_path / "absent" / "gates.json").write_text(""))
    assert cli.main(["try_it"]) == 2
    assert (
        f"{tmp_path / 'absent' / 'gates.json'}\n  got:      No such file" in capsys.readouterr().err
    )


def test_ctrl_c_exits_130(verb) -> None:
    def run(args: argparse.Namespace) -> int:
        raise KeyboardInterrupt

    verb(run)
    assert cli.main(["try_it"]) == 130


def test_the_verb_s_own_status_is_passed_on(verb) -> None:
    verb(lambda args: 1)
    assert cli.main(["try_it"]) == 1


def test_an_unknown_verb_names_those_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["quantise"]) == 2
    assert "quantize" in capsys.readouterr().err


@pytest.mark.parametrize("old", verbs.MOVED)
def test_a_verb_of_earlier_versions_names_the_command_that_took_its_place(
    old: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([old, "--help"]) == 2
    command, stage = verbs.MOVED[old].split()
    assert f"qvla {command} {stage}" in capsys.readouterr().err
    assert command in cli.VERBS
    assert stage in STAGES


def test_an_unknown_stage_names_those_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["reference", "training"]) == 2
    error = capsys.readouterr().err
    assert "evaluate" in error
    assert "`qvla reference --help`" in error


@pytest.mark.parametrize("arguments", [["reference"], ["reference", "all"]])
def test_the_workshop_without_a_stage_follows_the_recipe(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = str(ROOT / "config" / "train" / "reference.yaml")
    assert cli.main([*arguments, "--recipe", recipe, "--dry-run"]) == 0
    assert "qvla reference demonstrations --task_suite_name" in capsys.readouterr().out


@pytest.mark.parametrize(
    "command", [[verb] for verb in cli.VERBS] + [["reference", stage] for stage in STAGES], ids=str
)
def test_help_imports_no_heavy_package(command: list[str]) -> None:
    program = f"""
import json, sys
from qvla_ros.cli.main import main
try:
    main({[*command, "--help"]})
except SystemExit:
    print(json.dumps(sorted({{name.partition(".")[0] for name in sys.modules}})))
"""
    output = subprocess.check_output([sys.executable, "-c", program], text=True)
    text, loaded = output.rstrip().rsplit("\n", 1)
    assert f"usage: qvla {' '.join(command)}" in text
    assert not HEAVY & set(json.loads(loaded))


def test_a_verb_whose_packages_are_missing_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(cli.VERBS, "gates", verbs.Verb("no_such_package.cli.gates", "-"))
    assert cli.main(["gates"]) == 2
    error = capsys.readouterr().err
    assert "no_such_package" in error
    assert "'.[offline]'" in error


def test_so_does_one_that_finds_out_while_it_runs(verb, capsys: pytest.CaptureFixture[str]) -> None:
    def run(args: object) -> int:
        import no_such_package  # noqa: F401

        return 0

    verb(run)
    assert cli.main(["try_it"]) == 2
    assert "no_such_package" in capsys.readouterr().err


def test_a_missing_module_of_our_own_is_a_bug_and_shows_as_one(verb) -> None:
    def run(args: object) -> int:
        import qvla_ros.no_such_module  # noqa: F401

        return 0

    verb(run)
    with pytest.raises(ModuleNotFoundError):
        cli.main(["try_it"])


def test_our_warnings_are_a_sentence_and_others_keep_their_place() -> None:
    assert (
        cli.plain_warning("chunks of 8 are assumed", QvlaWarning, "a.py", 3)
        == "warning: chunks of 8 are assumed\n"
    )
    assert cli.plain_warning("rounding", RuntimeWarning, "a.py", 3, line="x").startswith(
        "a.py:3: RuntimeWarning"
    )


def test_help_whose_reader_has_gone_ends_without_a_traceback() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "qvla_ros.cli.main", "--help"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    os.close(writer)
    assert (done.returncode, done.stderr) == (BROKEN_PIPE, "")


@pytest.mark.parametrize(
    ("verb", "options", "said"),
    [
        ("gates", ["--out_json", "G"], "left half-written; the same command starts over."),
        ("sensitivity", ["--bits", "8"], "where it was: qvla sensitivity --bits 8 --resume"),
        ("sensitivity", ["--resume"], "where it was: qvla sensitivity --resume"),
        ("quantize", ["--recipe", "a b"], "where it was: qvla quantize --recipe 'a b'"),
    ],
)
def test_what_ctrl_c_ends_says_how_to_go_on(verb, options, said, monkeypatch, capsys) -> None:
    def interrupted(args: argparse.Namespace) -> int:
        raise KeyboardInterrupt

    module = importlib.import_module(VERBS[verb].module)
    monkeypatch.setattr(module, "run", interrupted)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", lambda *_: argparse.Namespace())
    assert main([verb, *options]) == 130
    assert capsys.readouterr().err.strip().endswith(said)
