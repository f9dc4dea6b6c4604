"""What is written for a node and not in force there is an error with the value in force."""

from __future__ import annotations

from pathlib import Path

import pytest

from qvla_ros.errors import QvlaError
from qvla_ros.parameters.given import in_force, read_arguments
from qvla_ros.parameters.misfits import misfits

KNOWN = {"max_linear_velocity": [0.25], "deadman": False, "engine_options": {}}
SPEED = "max_linear_velocity: [0.05]"


def section(name: str, *lines: str) -> str:
    return f"{name}:\n  ros__parameters:\n" + "".join(f"    {line}\n" for line in lines)


class Given:
    """Parameter files as the command line of the node /arm/policy."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def misfits(self, *texts: str, rules: tuple[str, ...] = ()) -> list[str]:
        words = ["--ros-args"]
        for number, text in enumerate(texts):
            (self._folder / f"{number}.yaml").write_text(text)
            words += ["--params-file", str(self._folder / f"{number}.yaml")]
        words += [word for rule in rules for word in ("-p", rule)]
        written = read_arguments(words)
        values = {name: each.value for name, each in in_force(written, "/arm/policy").items()}
        known = {name: values.get(name, default) for name, default in KNOWN.items()}
        return misfits(written, "/arm/policy", known, values)


@pytest.fixture
def given(tmp_path: Path) -> Given:
    return Given(tmp_path)


@pytest.mark.parametrize("name", ["policy", "/policy", "/*", "/arm/polcy", "/other/policy", "arm"])
def test_a_section_that_fits_no_node_is_refused_and_its_fix_mends_it(
    given: Given, name: str
) -> None:
    with pytest.raises(
        QvlaError, match=r"line 3: got .*= \[0.05\], not in force: /arm/policy has \[0.25\]"
    ) as refused:
        given.misfits(section(name, SPEED))
    assert refused.value.fix.startswith("write `/arm/policy:` (in a file for many nodes `/**:`)")
    for mended in ("/arm/policy", "/**"):
        assert given.misfits(section(mended, SPEED)) == []


def test_a_file_for_both_arms_is_taken_by_each(given: Given) -> None:
    both = section("/left/policy", SPEED) + section("/arm/policy", SPEED)
    assert given.misfits(both) == []


def test_a_section_of_another_kind_of_node_is_left_to_it(given: Given) -> None:
    bridge = section("/libero_bridge", "use_sim_time: true", "task_ids: [0]")
    assert given.misfits(bridge) == []
    [warning] = given.misfits(section("/driver", "deadman: true", "port: /dev/ttyUSB0"))
    assert "section /driver sets deadman = True, not in force: /arm/policy has False" in warning


def test_a_rule_for_another_node_is_refused(given: Given) -> None:
    with pytest.raises(
        QvlaError, match=r"^-p policy:deadman:=true: got .*Fix: leave `policy:` out"
    ):
        given.misfits(rules=("policy:deadman:=true",))
    assert given.misfits(rules=("deadman:=true",)) == []


@pytest.mark.parametrize(
    "name",
    ["max_linear_velocty", "max_velocity_linear", "max_linear_vel", "Max_linear_velocity"],
)
@pytest.mark.parametrize("place", ["/**", "/arm/policy"])
def test_a_misspelled_name_is_refused_with_the_value_in_force(
    given: Given, name: str, place: str
) -> None:
    expected = r"did you mean max_linear_velocity \(in force: \[0.25\]\)"
    with pytest.raises(QvlaError, match=rf"0.yaml, line 3: parameter: got {name}; .*{expected}"):
        given.misfits(section(place, f"{name}: [0.05]"))


def test_an_unknown_name_is_refused_where_it_is_for_this_node_alone_else_warned_of(
    given: Given,
) -> None:
    assert "speed_limit has no effect" in given.misfits(section("/**", "speed_limit: 0.05"))[0]
    for text, rules in (
        (section("/arm/policy", "speed_limit: 0.05"), ()),
        ("", ("speed_limit:=1",)),
    ):
        with pytest.raises(QvlaError, match="got speed_limit; expected a parameter that /arm/pol"):
            given.misfits(text, rules=rules)


def test_ros_own_parameters_and_options_are_known(given: Given) -> None:
    own = ("use_sim_time: true", "qos_overrides: {/a: {publisher: {depth: 5}}}")
    assert given.misfits(section("/arm/policy", *own, "engine_options: {threads: 2}")) == []


def test_a_value_that_a_general_section_after_it_undoes_is_refused(given: Given) -> None:
    own = section("/arm/policy", SPEED)
    general = section("/**", "max_linear_velocity: [0.5]")
    with pytest.raises(QvlaError, match=r"not in force: .*line 6 sets \[0.5\] after it") as refused:
        given.misfits(own + general)
    assert refused.value.fix.startswith("put the section /** first")
    assert given.misfits(general + own) == []
    assert given.misfits(own, general) == []  # a later file is meant to win


def test_names_of_another_node_in_a_section_for_both_are_no_matter(tmp_path: Path) -> None:
    path = tmp_path / "both.yaml"
    for place, expected in (("/**", []), ("/arm/policy", None)):
        path.write_text(section(place, "deadmans: 1"))
        written = read_arguments(["--ros-args", "--params-file", str(path)])
        if expected is None:
            with pytest.raises(QvlaError, match="did you mean deadman"):
                misfits(written, "/arm/policy", KNOWN, others=["deadmans"])
        else:
            assert misfits(written, "/arm/policy", KNOWN, others=["deadmans"]) == expected
