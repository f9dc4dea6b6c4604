"""What the documents name exists: verbs, options, make targets, parameters, files."""

from __future__ import annotations

import argparse
import re
from importlib import import_module
from pathlib import Path

import pytest

from qvla_reference.cli.main import STAGES
from qvla_ros.cli.verbs import VERBS
from qvla_ros.control.stop_reason import StopReason

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [
    "README.md",
    "docs/measured.md",
    "docs/bring_up.md",
    "docs/conventions.md",
    "docs/lab_notes.md",
    "config/README.md",
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs" / "how_to").glob("*.md")),
]
# Names in `qvla NAME` that are not verbs: the package in launch and service commands.
NOT_VERBS = {"policy.launch.py"}


def commands(text: str) -> list[str]:
    """Lines of code blocks and code spans that call `qvla`, without their comments."""
    code = re.findall(r"```bash\n(.*?)```", text, re.DOTALL) + re.findall(r"`([^`\n]+)`", text)
    lines = [line.partition("#")[0].strip() for block in code for line in block.splitlines()]
    return [line for line in lines if re.match(r"(\.venv/bin/)?qvla [a-z]", line)]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_names_a_verb(document: str) -> None:
    found = commands((ROOT / document).read_text(encoding="utf-8"))
    assert found
    assert {line.split()[1] for line in found} - NOT_VERBS <= set(VERBS)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_option_is_one_of_its_verb(document: str) -> None:
    for line in commands((ROOT / document).read_text(encoding="utf-8")):
        words = line.split()
        verb = VERBS[words[1]] if words[1] != "reference" else (VERBS | STAGES)[words[2]]
        parser = argparse.ArgumentParser()
        import_module(verb.module).add_arguments(parser)
        for option in re.findall(r"--[a-z_]+", line):
            assert option in parser._option_string_actions, f"{line}: {option}"


@pytest.mark.parametrize("folder", ["qvla_ros", "offline"])
def test_messages_and_docstrings_name_commands_that_exist(folder: str) -> None:
    found = 0
    for path in (ROOT / folder).rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        for verb, word in re.findall(r"`qvla ([a-z]\w+)(?: ([a-z]\w+))?", text):
            if verb == "argv":  # the parameter of main
                continue
            assert verb in VERBS, f"{path}: {verb}"
            assert verb != "reference" or word in {"", *STAGES}, f"{path}: {word}"
            found += 1
    assert found > 10


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"`?make ([a-z]+)", README)) | {"demo", "test"}
    for target in targets & {"demo", "test", "setup", "clean", "pin"}:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_bring_up_guide_names_stop_reasons_and_launch_arguments_that_exist() -> None:
    guide = (ROOT / "docs" / "bring_up.md").read_text(encoding="utf-8")
    expected = guide.split("| do this | expect |")[1].split("\n\n")[0]
    named = re.findall(r"\| `(\w+)` \|$", expected, re.MULTILINE)
    assert len(named) >= 6
    assert set(named) <= {reason.name for reason in StopReason}
    files = [ROOT / "launch" / name for name in ("robot.launch.py", "policy.launch.py")]
    launch = "".join(path.read_text(encoding="utf-8") for path in files)
    for line in re.findall(r"^ros2 launch qvla robot.launch.py (.*)$", guide, re.MULTILINE):
        for argument in re.findall(r"(\w+):=", line):
            assert f'"{argument}"' in launch


def test_the_table_of_conventions_is_whole_and_names_files_that_exist() -> None:
    text = (ROOT / "docs" / "conventions.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| .* \| (met|partly|no) \| (.*) \|$", text, re.MULTILINE)
    assert [int(number) for number, _, _ in rows] == list(range(1, 32))
    for _, _, where in rows:
        for path in re.findall(r"`([\w./]+/\w+\.(?:py|action)|\w+\.(?:py|xml|rst))`", where):
            assert (ROOT / "qvla_ros" / path).exists() or (ROOT / path).exists(), path


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_linked_file_exists(document: str) -> None:
    path = ROOT / document
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", path.read_text(encoding="utf-8")):
        assert (path.parent / link).exists(), link


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if "how_to" not in d])
def test_every_path_of_the_checkout_exists(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    folders = "benchmarks|config|docs|environment|launch|offline|qvla_ros|tests"
    for path in re.findall(rf"(?<![\w/.-])((?:{folders})/[\w./-]+\.\w+)", text):
        if not re.search(r"/[A-Z]+/", path):  # a name to fill in
            assert (ROOT / path).exists(), path


def test_every_listed_folder_exists() -> None:
    tree = re.findall(r"^([a-z_]+/)", README.split("## Layout")[1], re.MULTILINE)
    assert len(tree) > 5
    for path in tree:
        assert (ROOT / path).exists(), path
