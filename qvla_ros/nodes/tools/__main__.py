"""`python -m qvla_ros.nodes.tools record --out BAG` and `python -m qvla_ros.nodes.tools graph`."""

from __future__ import annotations

import sys

from qvla_ros.nodes.tools.main import main

sys.exit(main())
