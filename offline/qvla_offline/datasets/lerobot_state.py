"""Which numbers of a LeRobot state are the policy's: by name wherever the dataset names them."""

from __future__ import annotations

import warnings
from typing import Any

from qvla_offline.datasets.lerobot_metadata import Metadata
from qvla_offline.datasets.observed import Needs
from qvla_offline.datasets.sources import LeRobotSource
from qvla_ros.errors import QvlaError, QvlaWarning

_EXAMPLE = "config/calibration/lerobot.yaml"
_POSITION = ".pos"  # lerobot's robots end the names of joint positions so


def state_dimensions(
    metadata: Metadata, source: LeRobotSource, needs: Needs
) -> tuple[int, ...] | None:
    """The places of the policy's numbers in the state; None: all, in their order.

    `state_dimensions` of the description says it. Else the names in info.json do, if they are
    those of the policy; if none of them is, the order counts, with a warning. QvlaError where some
    are and some are not.
    """
    names = dimension_names(metadata.features[source.state])
    wanted = needs.proprioception
    chosen = source.state_dimensions
    where = f"{metadata.root}: {source.state}"
    if not names:
        if chosen is None:
            warnings.warn(
                f"{where}: info.json names no dimensions: they are read as {_listed(wanted)}, in "
                f"this order; state_dimensions in a YAML file like {_EXAMPLE} says another",
                QvlaWarning,
                stacklevel=2,
            )
        return chosen
    if chosen is not None:
        called = [names[place] for place in chosen if 0 <= place < len(names)]
        if called != list(wanted) and set(called) & set(wanted):
            text = f"{where}: state_dimensions takes {_listed(called)} as {_listed(wanted)}"
            warnings.warn(text, QvlaWarning, stacklevel=2)
        return chosen
    known = set(names) & set(wanted)
    if known == set(wanted) and len(set(names)) == len(names):
        return tuple(names.index(name) for name in wanted)
    if known:
        fix = f"choose them with state_dimensions in a YAML file like {_EXAMPLE}, and pass that"
        raise QvlaError(where, f"the names {_listed(names)}", _listed(wanted), fix)
    if len(names) == len(wanted):
        warnings.warn(
            f"{where}: {_listed(names)} are read as {_listed(wanted)}, in this order; "
            f"state_dimensions in a YAML file like {_EXAMPLE} says another",
            QvlaWarning,
            stacklevel=2,
        )
    return None


def dimension_names(feature: dict[str, Any]) -> list[str]:
    """The names of a feature's dimensions; none if it has not one for each.

    info.json has a list, lists in lists, objects of them ({"motors": [...]}), or an object {name:
    place}.
    """
    names = _flat(feature.get("names"))
    if [len(names)] != feature.get("shape"):
        return []
    return [name.removesuffix(_POSITION) for name in names]


def _flat(names: Any) -> list[str]:
    """The names in their order, out of lists, and of objects of lists or of places."""
    if isinstance(names, str):
        return [names]
    if isinstance(names, dict):
        if names and all(type(place) is int for place in names.values()):
            return sorted(names, key=names.__getitem__)
        names = list(names.values())
    if not isinstance(names, list):
        return []
    return [name for part in names for name in _flat(part)]


def _listed(names: Any) -> str:
    return ", ".join(names)
