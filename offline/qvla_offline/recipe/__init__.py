"""Runs all steps of a quantization from one YAML file.

They make sensitivity, gates, bundle and, if wanted, a fake-quantized checkpoint and a summary.
A step is skipped when its result exists and was made from the same inputs; `steps.json` in the
output directory holds the hashes. Paths in the YAML are relative to it.
"""

from __future__ import annotations

from qvla_offline.recipe.recipe import Recipe, read_recipe
from qvla_offline.recipe.run import run_recipe

__all__ = ["Recipe", "read_recipe", "run_recipe"]
