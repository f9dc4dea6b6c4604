"""`python -m qvla_ros.nodes.libero_bridge`."""

from __future__ import annotations

import sys

from qvla_ros.nodes.libero_bridge.main import main

sys.exit(main())
