"""Measures whether the tests notice a slip in the code, by random mutants.

    python benchmarks/mutants.py [control gates ...] [--seed 1] [--mutants 240]

A mutant is the code with one comparison, operator, constant, `and` or `or` replaced. The tests of
its own module kill it when one of them fails or they compute far too long; else it survives.
mutants.yaml in the same folder names the modules, their tests and the replacements, and lists the
mutants that no test can kill ("equivalent"). Works in a copy under build/mutants; results are kept
there, and a mutant runs again only when its file or its tests have changed, so an interrupted run
goes on where it was.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import importlib
import importlib.util
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from cosmic_ray.ast import ast_nodes, get_ast_from_path
from cosmic_ray.mutating import use_mutation
from cosmic_ray.plugins import get_operator
from cosmic_ray.work_item import MutationSpec
from rich.progress import track

ROOT = Path(__file__).parent.parent
WORK = ROOT / "build" / "mutants"
LEAST_CPU_S = 20
LONGEST_WAIT_S = 600.0  # of tests that wait instead of computing; other programs may be running
# What the tests import besides the project: imported once, then forked.
PRELOADED = (
    "hypothesis",
    "hypothesis.extra.numpy",
    "numpy",
    "scipy.spatial",
    "scipy.stats",
    "torch",
)
CLASSES = {
    "comparison": "ReplaceComparisonOperator_",
    "binary": "ReplaceBinaryOperator_",
    "unary": "ReplaceUnaryOperator_",
    "other": "",
}


@dataclass(frozen=True)
class Module:
    """Source files that are judged by the same tests; paths are relative to the copy."""

    name: str
    files: list[Path]
    tests: list[str]

    def test_files(self, file: Path | None = None) -> list[Path]:
        """All test files, those named after `file` first: they fail soonest."""
        found = [path for name in self.tests for path in [Path(name), *Path(name).rglob("*.py")]]
        names = [path for path in found if path.name.startswith("test_") and path.is_file()]
        return sorted(names, key=lambda path: (not file or file.stem not in path.stem, path))

    def fingerprint(self, file: Path) -> str:
        """Changes when `file` or one of the module's tests does."""
        contents = [path.read_bytes() for path in [file, *self.test_files()]]
        return hashlib.sha256(b"\0".join(contents)).hexdigest()[:16]


@dataclass(frozen=True)
class Result:
    """The result of one mutant; `outcome` is killed, survived or equivalent."""

    module: str
    outcome: str
    diff: str


def copy_checkout() -> None:
    """Copies the files that git has or would add, as they are now, to where mutants are made."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    shutil.rmtree(WORK / "tree", ignore_errors=True)
    for name in filter(None, names.split("\0")):
        source = ROOT / name
        if source.is_file():
            target = WORK / "tree" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)


def use_copy() -> None:
    """Lets the tests import the copy, and what it imports besides, before processes are forked."""
    os.chdir(WORK / "tree")
    paths = [str(Path.cwd()), str(Path.cwd() / "offline")]
    sys.path[:0] = paths
    sys.dont_write_bytecode = True  # a file may change twice in the time that a .pyc tells apart
    os.environ["PYTHONPATH"] = os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")])
    os.environ["CI"] = "1"  # hypothesis draws the same examples in each run
    for name in ("qvla_ros", "qvla_offline"):
        found = importlib.util.find_spec(name)
        if found is None or not Path(str(found.origin)).is_relative_to(Path.cwd()):
            sys.exit(f"{name} is imported from {found}, not from {Path.cwd()}")
    for name in PRELOADED:
        importlib.import_module(name)


def is_behaviour(node: Any) -> bool:
    """Whether `node` is neither in a type annotation nor in a decorator nor a zip's `strict`."""
    while (parent := node.parent) is not None:
        if parent.type in ("tfpdef", "decorator"):
            return False
        if parent.type == "annassign" and node is parent.children[1]:
            return False
        if parent.type == "funcdef" and node is parent.annotation:
            return False
        if parent.type == "argument" and parent.get_first_leaf().value == "strict":
            return False
        node = parent
    return True


def mutations(files: list[Path], operators: list[str]) -> list[list[MutationSpec]]:
    """All replacements, grouped by the place in the code that they replace."""
    places: dict[tuple[Path, tuple[int, int]], list[MutationSpec]] = {}
    for file in files:
        nodes = list(ast_nodes(get_ast_from_path(file)))
        for name in operators:
            operator = get_operator(name)()
            found = [(node, *span) for node in nodes for span in operator.mutation_positions(node)]
            for occurrence, (node, start, end) in enumerate(found):
                if is_behaviour(node):
                    spec = MutationSpec(file, name, occurrence, start, end)
                    places.setdefault((file, start), []).append(spec)
    return [places[place] for place in sorted(places)]


def sample(places: list[list[MutationSpec]], count: int, seed: str) -> list[MutationSpec]:
    """`count` random places, at each one random replacement; the same for the same seed."""
    generator = random.Random(seed)
    return [generator.choice(place) for place in generator.sample(places, count)]


def passes(module: Module, file: Path | None = None, cpu_s: int | None = None) -> bool:
    """Runs the module's tests in a process of its own until one fails; those of `file` first.

    cpu_s: how long they may compute.
    """
    log = WORK / "tests.log"
    child = os.fork()
    if child == 0:
        os.setsid()
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
        os.dup2(1, 2)
        if cpu_s is not None:
            resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))
        files = map(str, module.test_files(file))
        code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", *files])
        sys.stdout.flush()
        os._exit(int(code))
    given_up_s = time.monotonic() + LONGEST_WAIT_S
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status == 0
        if time.monotonic() > given_up_s:
            os.killpg(child, signal.SIGKILL)
        time.sleep(0.05)


def cpu_limit_s(module: Module, times_as_long: float) -> int:
    """Runs the tests on the unchanged code, which must pass, and derives the limit from that."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    if not passes(module):
        output = (WORK / "tests.log").read_text()[-3000:]
        sys.exit(f"{output}\nThe tests of {module.name} must pass before the code is changed.")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used_s = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return max(LEAST_CPU_S, round(times_as_long * used_s))


def changed_lines(diff: str) -> tuple[str, str, str]:
    """The file, the line before and the line after, without indentation."""
    file, _, _, *lines = diff.splitlines()
    before = next(line[1:] for line in lines if line.startswith("-"))
    after = next(line[1:] for line in lines if line.startswith("+"))
    return file.removeprefix("--- "), before.strip(), after.strip()


def judge(
    module: Module, specs: list[MutationSpec], cpu_s: int, equivalents: set[tuple[str, str, str]]
) -> Iterator[Result]:
    """Runs each mutant that has no result yet."""
    for spec in track(specs, f"mutants of {module.name}"):
        file = spec.module_path
        place = f"{file.stem}-{spec.operator_name.partition('/')[2]}-{spec.occurrence}"
        kept = WORK / "results" / module.fingerprint(file) / f"{place}.json"
        if not kept.exists():
            with use_mutation(file, get_operator(spec.operator_name)(), spec.occurrence) as texts:
                killed = not passes(module, file, cpu_s)
            lines = (text.splitlines() for text in texts)
            diff = "\n".join(difflib.unified_diff(*lines, str(file), str(file), lineterm=""))
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps({"killed": killed, "diff": diff}))
        result = json.loads(kept.read_text())
        equivalent = changed_lines(result["diff"]) in equivalents
        survived = "equivalent" if equivalent else "survived"
        yield Result(module.name, "killed" if result["killed"] else survived, result["diff"])


def table(results: list[Result], modules: list[str]) -> str:
    """Markdown, a row a module: counts, and the share killed of all and of all but equivalents."""
    outcomes = ["killed", "equivalent", "survived"]
    lines = [
        f"| module | mutants | {' | '.join(outcomes)} | killed of all | of all but equivalents |",
        "|---" * 7 + "|",
    ]
    for name in [*modules, "all"]:
        of_module = [result.outcome for result in results if name in (result.module, "all")]
        killed, equivalent, survived = (of_module.count(outcome) for outcome in outcomes)
        shares = (killed / max(1, count) for count in (len(of_module), killed + survived))
        counts = (len(of_module), killed, equivalent, survived)
        cells = [name, *map(str, counts), *(f"{share:.0%}" for share in shares)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    config = yaml.safe_load((ROOT / "benchmarks" / "mutants.yaml").read_text())
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("modules", nargs="*", help=f"of {' '.join(config['modules'])}; default all")
    parser.add_argument("--seed", type=int, default=config["seed"])
    parser.add_argument("--mutants", type=int, default=config["mutants"], help="of all modules")
    options = parser.parse_args()

    copy_checkout()
    use_copy()
    operators = [
        f"core/{CLASSES[kind]}{name}"
        for kind, names in config["operators"].items()
        for name in names
    ]
    equivalents = {(one["file"], one["line"], one["mutant"]) for one in config["equivalent"]}
    places = {}
    modules = {}
    for name, entry in config["modules"].items():
        files = sorted(file for pattern in entry["source"] for file in Path().glob(pattern))
        modules[name] = Module(name, files, entry["tests"])
        places[name] = mutations(files, operators)
    total = sum(map(len, places.values()))
    results: list[Result] = []
    wanted = options.modules or list(modules)
    if unknown := [name for name in wanted if name not in modules]:
        sys.exit(f"no modules {unknown}: choose some of {list(modules)}")
    for name in wanted:
        count = round(options.mutants * len(places[name]) / total)
        specs = sample(places[name], count, f"{options.seed} {name}")
        cpu_s = cpu_limit_s(modules[name], config["slowest"])
        results += judge(modules[name], specs, cpu_s, equivalents)
    print("\n\n".join(result.diff for result in results if result.outcome == "survived"))
    print(f"\n{table(results, wanted)}\n\nseed {options.seed}, {total} places")


if __name__ == "__main__":
    main()
