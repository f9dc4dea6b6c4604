"""Packages of others that add engines, outputs, decoders or families of checkpoints.

A package names a function under the entry-point group `qvla.plugins`:

    [project.entry-points."qvla.plugins"]
    my_engine = "my_package.plugin:register"

`qvla` and the nodes call it when they start, before they read options or parameters.
"""

from __future__ import annotations

import warnings
from functools import cache
from importlib.metadata import entry_points

from qvla_ros.errors import QvlaWarning

GROUP = "qvla.plugins"


@cache
def load_plugins() -> None:
    """Calls the function of every installed plugin, once a process.

    A plugin that fails is named in a QvlaWarning, and the others are still loaded.
    """
    for plugin in sorted(entry_points(group=GROUP)):
        try:
            plugin.load()()
        except Exception as error:  # whatever it is: the program works without the plugin
            warnings.warn(
                f"plugin {plugin.name} ({plugin.value}) failed and adds nothing: "
                f"{type(error).__name__}: {error}; correct it or uninstall its package",
                QvlaWarning,
                stacklevel=2,
            )
