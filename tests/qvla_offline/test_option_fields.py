"""Options written once: a field of a dataclass is an option of the verb and a key of the recipe."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from typing import Literal

import pytest

from qvla_offline.option_fields import (
    add_options,
    given,
    option,
    required_option,
    step_values,
)
from qvla_ros.errors import QvlaError
from qvla_ros.strict_json import parse

FIX = "compare with the example"


@dataclass(frozen=True)
class Toasting:
    """A step with one option of each kind."""

    minutes: float = required_option("time in the toaster")
    slots: tuple[int, ...] = option((1, 2), "slots to fill")
    bread: Literal["white", "rye"] = option("white", "white or rye")
    name: str | None = option(None, "who eats it")
    burnt: bool = option(False, "burn it")
    butter: bool | None = option(None, "leave it dry")
    internal: int = 3
    jam: int = option(0, "spoons of jam", later=True)


def command_line(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_options(parser, Toasting)
    return parser.parse_args(arguments)


def test_a_field_with_help_is_an_option_and_a_key_of_the_recipe() -> None:
    arguments = ["--minutes", "2.5", "--slots", "1,4", "--bread", "rye", "--name", "Ada"]
    args = command_line(*arguments, "--burnt", "--no_butter")
    section = {"minutes": 2.5, "slots": [1, 4], "bread": "rye", "name": "Ada"}
    read = parse(Toasting, section | {"burnt": True, "butter": False}, "toasting", FIX)
    assert Toasting(**given(args, Toasting)) == read


def test_what_is_not_given_keeps_the_default_of_the_field() -> None:
    assert given(command_line("--minutes", "2"), Toasting) == {"minutes": 2.0}
    assert Toasting(2.0) == parse(Toasting, {"minutes": 2}, "toasting", FIX)


def test_a_required_option_is_required_on_both_ways(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command_line()
    assert "--minutes" in capsys.readouterr().err
    with pytest.raises(QvlaError, match=r"toasting\.minutes"):
        parse(Toasting, {}, "toasting", FIX)


def test_help_shows_the_text_and_the_default_of_each_field() -> None:
    parser = argparse.ArgumentParser()
    add_options(parser, Toasting)
    text = " ".join(parser.format_help().split())
    assert "slots to fill (default: 1,2)" in text
    assert "white or rye (default: white)" in text
    assert "who eats it --burnt" in text
    assert "--internal" not in text


def test_help_shows_the_choices_of_a_literal_and_another_word_is_bad_input() -> None:
    parser = argparse.ArgumentParser()
    add_options(parser, Toasting)
    assert "--bread {white,rye}" in parser.format_help()
    with pytest.raises(QvlaError, match="^bread: got plain; expected one of white, rye"):
        command_line("--minutes", "1", "--bread", "plain")


def test_a_later_option_changes_the_values_of_a_step_only_when_it_is_used() -> None:
    before = {"minutes", "slots", "bread", "name", "burnt", "butter", "internal"}
    toasting = Toasting(2.0)
    assert set(step_values(toasting)) == before
    assert step_values(replace(toasting, jam=2)) == step_values(toasting) | {"jam": 2}


def test_a_verb_may_take_some_of_the_options_and_name_another_default() -> None:
    parser = argparse.ArgumentParser()
    add_options(parser, Toasting, {"slots"}, default="all that are free")
    text = " ".join(parser.format_help().split())
    assert "slots to fill (default: all that are free)" in text
    assert "--bread" not in text
    assert parser.parse_args([]).slots is None


def test_a_list_that_is_none_is_bad_input() -> None:
    with pytest.raises(QvlaError, match="numbers with commas"):
        command_line("--minutes", "1", "--slots", "one")
