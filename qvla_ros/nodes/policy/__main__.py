"""`python -m qvla_ros.nodes.policy`."""

from __future__ import annotations

import sys

from qvla_ros.nodes.policy.main import main

sys.exit(main())
