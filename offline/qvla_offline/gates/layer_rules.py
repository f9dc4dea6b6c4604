"""Rules that hold the layers of a pattern to some bit-widths. Imports no torch.

    language_model.*=4, vision_backbone.*>=4, *.attn.proj<=8, *.fc2=16

A pattern is matched with the whole name of a layer: `*` stands for anything, `?` for one character.
`=` gives the layers that width, 16 leaves them out of the quantization; `>=` is a floor and `<=` a
ceiling. Rules apply in their order. A floor or a ceiling narrows what a layer may have, and a width
replaces it, so that exceptions come last.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from qvla_offline.quantization.scheme import BIT_WIDTHS
from qvla_ros.errors import QvlaError

_RULE = re.compile(r"\s*([^\s=<>,]+)\s*(=|>=|<=)\s*([0-9]+)\s*")
_EXAMPLE = "language_model.*=4,vision_backbone.*>=8"
_SHOWN = 4  # names in an error


@dataclass(frozen=True)
class LayerRule:
    """One rule. relation: "=", ">=" or "<="; bits: one of BIT_WIDTHS."""

    pattern: str
    relation: str
    bits: int

    def __str__(self) -> str:
        return f"{self.pattern}{self.relation}{self.bits}"

    def matches(self, name: str) -> bool:
        """Whether the layer `name` is one of the pattern's."""
        return fnmatchcase(name, self.pattern)

    def allowed(self, widths: Collection[int]) -> tuple[int, ...]:
        """Those of `widths` that the rule leaves to a layer of its pattern."""
        if self.relation == "=":
            return (self.bits,)
        if self.relation == ">=":
            return tuple(b for b in widths if b >= self.bits)
        return tuple(b for b in widths if b <= self.bits)


def parse_rules(text: str | None, key: str = "layer_bits") -> tuple[LayerRule, ...]:
    """Reads rules with commas between them; none of None. QvlaError naming the one that is wrong.

    key: the option that holds them.
    """
    parts = [] if text is None else [part for part in text.split(",") if part.strip()]
    rules = []
    for part in parts:
        found = _RULE.fullmatch(part)
        if found is None or int(found[3]) not in BIT_WIDTHS:
            widths = ", ".join(map(str, BIT_WIDTHS))
            raise QvlaError(
                key,
                repr(part.strip()),
                f"PATTERN=BITS, PATTERN>=BITS or PATTERN<=BITS, with bits out of {widths}",
                f"write e.g. --{key} '{_EXAMPLE}'",
            )
        rules.append(LayerRule(found[1], found[2], int(found[3])))
    return tuple(rules)


def allowed_widths(
    rules: Sequence[LayerRule],
    layers: Collection[str],
    widths: Sequence[int],
    key: str = "layer_bits",
) -> dict[str, tuple[int, ...]]:
    """Returns {layer: the bit-widths that it may have, ascending}: `widths`, less by the rules.

    QvlaError for a pattern that is no layer's, naming near ones, and for a layer that is left
    without any width.
    """
    for rule in rules:
        if not any(map(rule.matches, layers)):
            raise QvlaError(
                key,
                f"{rule}, whose pattern is no layer's",
                "a pattern of whole names of layers",
                f"near names: {', '.join(_near(rule.pattern, layers))}",
            )
    return {name: _of_layer(name, rules, widths, key) for name in layers}


def require_rules_within(
    rules: Sequence[LayerRule], scored: Collection[int], key: str = "layer_bits"
) -> None:
    """Raises QvlaError for a rule that gives layers a width which is neither `scored` nor 16."""
    for rule in rules:
        if rule.relation == "=" and rule.bits not in scored and rule.bits != 16:
            raise QvlaError(
                key,
                f"{rule}, which the sensitivity file does not score",
                f"16 or one of {sorted(scored)}",
                "score it with `qvla sensitivity --bits ...`, or choose another width",
            )


def nearest_allowed(allowed: Mapping[str, Sequence[int]], width: int) -> dict[str, int]:
    """Returns {layer: the widest allowed bits up to `width`, or else the narrowest}."""
    return {
        name: max((b for b in widths if b <= width), default=min(widths))
        for name, widths in allowed.items()
    }


def _of_layer(
    name: str, rules: Sequence[LayerRule], widths: Sequence[int], key: str
) -> tuple[int, ...]:
    allowed = tuple(sorted(set(widths)))
    for rule in rules:
        if not rule.matches(name):
            continue
        before = allowed
        allowed = rule.allowed(allowed)
        if not allowed:
            left = ", ".join(map(str, before))
            raise QvlaError(
                key,
                f"{rule}, which leaves layer {name} no width",
                f"a rule that leaves one of {left} bits",
                "change the rule, give the layers one width with =, or put more widths into --bits",
            )
    return allowed


def _near(pattern: str, layers: Collection[str]) -> list[str]:
    """Names a few layers that hold the pattern's longest part, or else are spelt like it."""
    longest = max((part.strip(".") for part in re.split("[*?]+", pattern)), key=len)
    holding = [name for name in layers if longest and longest in name]
    alike = difflib.get_close_matches(pattern, list(layers), _SHOWN, cutoff=0.3)
    return (holding or alike or list(layers))[:_SHOWN]
