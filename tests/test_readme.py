"""What the documents tell people to type exists: verbs, options, make targets, parameters, files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from qvla_ros.cli.main import VERBS
from qvla_ros.nodes.policy import PARAMETERS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = ["README.md", "docs/measured.md"]
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
        module, _, attribute = VERBS[line.split()[1]].module.partition(".")
        folder = {"qvla_offline": "offline"}.get(module, module)
        source = (ROOT / folder / f"{attribute.replace('.', '/')}.py").read_text(encoding="utf-8")
        for option in re.findall(r"--[a-z_]+", line):
            assert f'"{option}"' in source, f"{line}: {option}"


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"`?make ([a-z]+)", README)) | {"demo", "test"}
    for target in targets & {"demo", "test", "setup", "clean", "pin"}:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_parameter_table_is_what_the_node_declares() -> None:
    section = README.split("### Parameters of the policy node")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", section, re.MULTILINE)
    told = {name: default.strip('`" ') for name, default in rows}
    declared = {
        spec.name: str(spec.default).lower() if spec.default is True else str(spec.default) for spec in PARAMETERS
    }
    assert told == declared


def test_every_linked_or_listed_file_exists() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    tree = re.findall(r"^([a-z_]+/)", README.split("## Layout")[1], re.MULTILINE)
    assert len(tree) > 5
    for path in links + tree:
        assert (ROOT / path).exists(), path
