"""Make the checkout importable in this environment, and `qvla` a command of it: what `pip install
-e` would do.

pip's editable installs cannot rename offline/ to qvla_offline without copying a list of files that
goes stale; two links can. Run by `make setup` with the environment's Python; safe to run again.
"""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
PACKAGES = {
    "qvla_ros": "qvla_ros",
    "qvla_offline": "offline/qvla_offline",
    "qvla_reference": "offline/qvla_reference",
}
COMMAND = """\
#!{python}
import sys

from qvla_ros.cli.main import main

if __name__ == "__main__":  # worker processes import this file
    sys.exit(main())
"""


def link_packages(site_packages: Path) -> None:
    """Point site_packages/<package> at its folder in the checkout; an installed copy in the way is
    an error.
    """
    for package, folder in PACKAGES.items():
        link = site_packages / package
        if link.is_symlink():
            link.unlink()
        elif link.exists():
            sys.exit(
                f"{link} is an installed copy; remove it first: {sys.executable} -m pip "
                "uninstall qvla-ros"
            )
        link.symlink_to(CHECKOUT / folder, target_is_directory=True)


def write_command(scripts: Path) -> None:
    """Write the `qvla` script, run by this very Python."""
    script = scripts / "qvla"
    script.write_text(COMMAND.format(python=sys.executable), encoding="utf-8")
    script.chmod(0o755)


if __name__ == "__main__":
    if sys.prefix == sys.base_prefix:
        sys.exit(
            "this is the system's Python; run it with the environment's: .venv/bin/python "
            "environment/develop.py"
        )
    link_packages(Path(sysconfig.get_path("purelib")))
    write_command(Path(sysconfig.get_path("scripts")))
