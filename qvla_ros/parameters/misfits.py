"""Finds what is written for a node and has no effect on it: wrong sections, misspelled names."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from difflib import get_close_matches
from itertools import groupby
from typing import Any

from qvla_ros.errors import QvlaError
from qvla_ros.parameters.files import Written
from qvla_ros.parameters.given import file_of, fits, is_particular, overruled

_LIKE = 0.8  # how much of two names must be alike; less would take other nodes' for misspelled
_ROS_OWN = ("use_sim_time", "start_type_description_service")


def misfits(
    written: Sequence[Written],
    node: str,
    known: Mapping[str, Any],
    given: Collection[str] = (),
    others: Collection[str] = (),
) -> list[str]:
    """Warnings of names that may be another node's; QvlaError for one that is written for `node`.

    node: its full name. known: its parameters with the values in force, an empty dict for options
    (qvla_ros.parameters.table.options). given: names that it got, from wherever. others: names of
    other nodes that share a section with it.
    """
    for early, late in overruled(written, node):
        raise QvlaError(
            f"{early.source}: {early.name}",
            f"{early.value!r}, not in force: {late.source} sets {late.value!r} after it",
            f"one value for {node}",
            f"put the section {late.section} first, or take one of the lines out",
        )
    sources = {each.name: each for each in written if fits(each.section, node)}
    unplaced = (Written("parameter", "/**", name, None) for name in sorted({*given} - {*sources}))
    warnings = list(_unfit_sections(written, node, known))
    for each in (*sources.values(), *unplaced):
        is_others = each.name in others and not is_particular(each.section)
        if not (is_others or _is_known(each.name, known) or is_of_ros(each.name)):
            warnings.append(_unknown(each, node, known))
    return warnings


def is_of_ros(name: str) -> bool:
    """Whether every node has this parameter, or takes it for its topics."""
    return name in _ROS_OWN or name.startswith("qos_overrides.")


def _is_known(name: str, known: Mapping[str, Any]) -> bool:
    return name in known or isinstance(known.get(name.partition(".")[0]), dict)


def _unfit_sections(
    written: Sequence[Written], node: str, known: Mapping[str, Any]
) -> Iterator[str]:
    """Sections that do not fit the node, in a file that has none for it alone."""
    served = {
        file_of(each)
        for each in written
        if each.section and is_particular(each.section) and fits(each.section, node)
    }
    unfit = [
        each
        for each in written
        if not fits(each.section, node) and not (file_of(each) and file_of(each) in served)
    ]
    for section, members in groupby(unfit, lambda each: each.section):
        yield from _unfit(section, list(members), node, known)


def _unfit(
    section: str, members: Sequence[Written], node: str, known: Mapping[str, Any]
) -> Iterator[str]:
    """Warns of a section that may be another node's; QvlaError if it must be meant for this one."""
    own = [each for each in members if not is_of_ros(each.name)]
    meant = [each for each in own if _is_known(each.name, known) or _likely(each.name, known)]
    if not meant:
        return
    first = meant[0]
    text = f"section {section} sets {first.name} = {first.value!r}"
    if first.name in known:
        text += f", not in force: {node} has {known[first.name]!r}"
    if len(meant) == len(own) or _last(section) == _last(node):
        fix = (
            f"write `{node}:` (in a file for many nodes `/**:`) in place of {section}; "
            "if it is for another node, give that one a file of its own"
        )
        if not file_of(first):
            fix = f"leave `{section.strip('/')}:` out"
        raise QvlaError(first.source, text, f"a section that fits {node}", fix)
    yield f"{first.source}: {text}; taken for another node's, which has other parameters too"


def _unknown(each: Written, node: str, known: Mapping[str, Any]) -> str:
    """A warning of a name in a section for many nodes; QvlaError if it is meant for this one."""
    likely = _likely(each.name, known)
    key = each.source if each.source == "parameter" else f"{each.source}: parameter"
    if likely is not None:
        expected = f"a known parameter; did you mean {likely} (in force: {known[likely]!r})?"
        raise QvlaError(key, each.name, expected, f"write {likely}, or take it out")
    if is_particular(each.section):
        expected = f"a parameter that {node} knows"
        fix = "take it out; `qvla parameters` lists those that are known"
        raise QvlaError(key, each.name, expected, fix)
    # No error: a section such as `/**` may hold the parameters of several nodes.
    return (
        f"parameter {each.name} has no effect: this node does not know it; "
        "`qvla parameters` lists those that it knows"
    )


def _likely(name: str, known: Mapping[str, Any]) -> str | None:
    """The parameter that a misspelled name stands for: nearly the same letters, or its words."""
    if is_of_ros(name):
        return None
    words = sorted(name.split("_"))
    for each in known:
        if len(words) > 1 and sorted(each.split("_")) == words:
            return each
    return next(iter(get_close_matches(name, known, 1, cutoff=_LIKE)), None)


def _last(name: str) -> str:
    return name.rpartition("/")[2]
