"""Steps that earlier versions finished stay up to date."""

from __future__ import annotations

from qvla_offline.export.options import ExportOptions
from qvla_offline.fingerprint import value_sha256
from qvla_offline.gates.options import Budget
from qvla_offline.option_fields import step_values
from qvla_offline.sensitivity.options import SensitivityOptions


def test_options_of_the_first_version_keep_their_hash() -> None:
    """A new option is declared with later=True; then finished steps do not run again.

    The first version's defaults are named where they are others now.
    """
    assert {
        "sensitivity": value_sha256(SensitivityOptions(bits=(0, 2, 4, 8)).described()),
        "gates": value_sha256(step_values(Budget(cost="nominal"))),
        "export": value_sha256(step_values(ExportOptions())),
    } == {
        "sensitivity": "6a35b8b007614ebfe206aedbb01d412ade3d63124d544a5dae515debb6bee4be",
        "gates": "568c46a4df703ee2d1086e39189bb7fc6bf5f1148b46fa6b52937b0770eaa17c",
        "export": "41ddad97ca082b12bf615f5bb152e69e82022efd59ede716da6d356d1808c9d5",
    }
