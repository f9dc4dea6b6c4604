"""The families of checkpoints: a file each, with all that is special about it.

A new family is one more file here and one more entry of FAMILIES. Code that works for any family
takes it from qvla_offline.checkpoints.family.
"""

from __future__ import annotations

from qvla_offline.families.openvla import OPENVLA
from qvla_offline.families.openvla_oft import OPENVLA_OFT
from qvla_offline.families.univla import UNIVLA

# The last is asked first whether it recognises a checkpoint: OpenVLA takes every one.
FAMILIES = (OPENVLA, OPENVLA_OFT, UNIVLA)
