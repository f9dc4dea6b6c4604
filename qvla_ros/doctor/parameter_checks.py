"""Checks that what a parameter file says is in force in the policy node."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qvla_ros.doctor.findings import Finding, failed, ok, warning
from qvla_ros.errors import QvlaError
from qvla_ros.parameters.bridge import BridgeParameters
from qvla_ros.parameters.check import check_value
from qvla_ros.parameters.files import read_parameter_file
from qvla_ros.parameters.given import in_force
from qvla_ros.parameters.misfits import misfits
from qvla_ros.parameters.policy import PolicyParameters
from qvla_ros.parameters.table import specs


def parameter_findings(path: Path, node: str) -> tuple[Mapping[str, Any], list[Finding]]:
    """The file's values that the node of this full name gets, and what is wrong with the file.

    No values if there is a problem: the node would not start with them.
    """
    about = f"{path} for {node}"
    declared = {spec.name: spec for spec in specs(PolicyParameters)}
    try:
        written = read_parameter_file(path)
        values = {name: each.value for name, each in in_force(written, node).items()}
        known = {name: values.get(name, spec.default) for name, spec in declared.items()}
        warnings = misfits(
            written, node, known, values, [spec.name for spec in specs(BridgeParameters)]
        )
        for name in declared.keys() & values.keys():
            check_value(declared[name], values[name])
    except QvlaError as error:
        return {}, [failed(about, error)]
    found = [warning(about, text, "take it out if it is for this node") for text in warnings]
    return values, found or [ok(about, f"{len(values)} of {path.name} are in force")]
