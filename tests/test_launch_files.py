"""Launch files name only what exists: executables, parameters, files, arguments.

ROS 2's own `launch` has no wheels, so recorders stand in for it: each class keeps the arguments it was made with. The
names and signatures used here are those of ros2/launch and ros2/launch_ros.
"""

from __future__ import annotations

import configparser
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from qvla_ros.engines import BACKENDS
from qvla_ros.nodes import libero_bridge, policy

ROOT = Path(__file__).parent.parent
SHARED_FOLDERS = ("launch", "config", "reference_policy")
PARAMETERS = {
    "policy": {spec.name: spec for spec in policy.PARAMETERS},
    "libero_bridge": {spec.name: spec for spec in libero_bridge.PARAMETERS},
}
API = {
    "launch": ("LaunchDescription",),
    "launch.actions": ("DeclareLaunchArgument", "IncludeLaunchDescription", "SetEnvironmentVariable", "Shutdown"),
    "launch.launch_description_sources": ("PythonLaunchDescriptionSource",),
    "launch.substitutions": ("LaunchConfiguration", "PathJoinSubstitution"),
    "launch_ros": (),
    "launch_ros.actions": ("LifecycleNode", "Node"),
    "launch_ros.parameter_descriptions": ("ParameterValue",),
    "launch_ros.substitutions": ("FindPackageShare",),
}


class Recorder:
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args, self.kwargs = args, kwargs


@pytest.fixture(autouse=True)
def recorded_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    for module_name, classes in API.items():
        module = ModuleType(module_name)
        for name in classes:
            setattr(module, name, type(name, (Recorder,), {}))
        monkeypatch.setitem(sys.modules, module_name, module)


def describe(file: str) -> Recorder:
    spec = importlib.util.spec_from_file_location(Path(file).stem.replace(".", "_"), ROOT / "launch" / file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.generate_launch_description()


def everything(value: Any) -> Iterator[Recorder]:
    """All recorders below `value`, itself included."""
    if isinstance(value, Recorder):
        yield value
        yield from everything([*value.args, *value.kwargs.values()])
    elif isinstance(value, dict):
        yield from everything([*value.keys(), *value.values()])
    elif isinstance(value, (list, tuple)) or hasattr(value, "mapping"):  # dict.items()
        for item in value:
            yield from everything(item)


def of(kind: str, description: Recorder) -> list[Recorder]:
    return [recorder for recorder in everything(description) if type(recorder).__name__ == kind]


def arguments(file: str) -> dict[str, Recorder]:
    return {recorder.args[0]: recorder for recorder in of("DeclareLaunchArgument", describe(file))}


FILES = sorted(path.name for path in (ROOT / "launch").iterdir() if path.suffix == ".py")


def test_there_are_launch_files() -> None:
    assert FILES == ["libero.launch.py", "policy.launch.py"]


@pytest.mark.parametrize("file", FILES)
def test_every_executable_is_installed_under_its_name(file: str) -> None:
    scripts = configparser.ConfigParser()
    scripts.read(ROOT / "cmake" / "console_scripts.cfg")
    lines = scripts["options.entry_points"]["console_scripts"].strip().splitlines()
    installed = dict(line.replace(" ", "").split("=") for line in lines)
    description = describe(file)
    nodes = of("Node", description) + of("LifecycleNode", description)
    assert nodes
    for node in nodes:
        assert node.kwargs["package"] == "qvla"
        assert installed[node.kwargs["executable"]] == f"qvla_ros.nodes.{node.kwargs['executable']}:main"


@pytest.mark.parametrize("file", FILES)
def test_every_parameter_is_one_that_the_node_declares(file: str) -> None:
    description = describe(file)
    for node in of("Node", description) + of("LifecycleNode", description):
        for parameters in node.kwargs["parameters"]:
            if isinstance(parameters, dict):
                assert set(parameters) <= set(PARAMETERS[node.kwargs["executable"]])


@pytest.mark.parametrize("file", FILES)
def test_every_shared_file_exists_in_a_folder_that_is_installed(file: str) -> None:
    joined = of("PathJoinSubstitution", describe(file))
    assert joined
    for substitution in joined:
        (package, *parts) = substitution.args[0]
        assert package.args == ("qvla",)
        assert parts[0] in SHARED_FOLDERS
        assert ROOT.joinpath(*parts).is_file()


@pytest.mark.parametrize("file", FILES)
def test_every_configuration_used_is_a_declared_argument_with_a_description(file: str) -> None:
    declared = arguments(file)
    used = {recorder.args[0] for recorder in of("LaunchConfiguration", describe(file))}
    assert used == set(declared)
    assert all(recorder.kwargs["description"] for recorder in declared.values())


@pytest.mark.parametrize("file", FILES)
def test_defaults_are_among_the_choices(file: str) -> None:
    for recorder in arguments(file).values():
        if "choices" in recorder.kwargs:
            assert recorder.kwargs["default_value"] in recorder.kwargs["choices"]


@pytest.mark.parametrize("file", FILES)
def test_the_backends_offered_are_those_that_exist(file: str) -> None:
    assert tuple(arguments(file)["backend"].kwargs["choices"]) == BACKENDS


@pytest.mark.parametrize("file", FILES)
def test_a_launch_argument_never_overrides_what_a_parameter_file_says(file: str) -> None:
    content = yaml.safe_load((ROOT / "config" / f"{file.partition('.')[0]}.yaml").read_text(encoding="utf-8"))
    nodes = of("Node", describe(file)) + of("LifecycleNode", describe(file))
    given = {name for node in nodes for item in node.kwargs["parameters"] if isinstance(item, dict) for name in item}
    assert not given & set(content["/**"]["ros__parameters"])


def test_the_included_file_gets_only_arguments_that_it_declares() -> None:
    (include,) = of("IncludeLaunchDescription", describe("libero.launch.py"))
    assert {key for key, _ in include.kwargs["launch_arguments"]} <= set(arguments("policy.launch.py"))


@pytest.mark.parametrize(("file", "nodes"), [("policy.yaml", ["policy"]), ("libero.yaml", ["policy", "libero_bridge"])])
def test_parameter_files_match_in_any_namespace_and_hold_declared_parameters(file: str, nodes: list[str]) -> None:
    content = yaml.safe_load((ROOT / "config" / file).read_text(encoding="utf-8"))
    assert list(content) == ["/**"]
    declared = {name: spec for node in nodes for name, spec in PARAMETERS[node].items()}
    for name, value in content["/**"]["ros__parameters"].items():
        spec = declared[name]
        assert type(value) is type(spec.default)
        assert not spec.choices or value in spec.choices
        assert spec.minimum is None or spec.minimum <= value <= spec.maximum
