"""ROS 2 nodes: thin shells around the pure core. Nothing outside this package imports rclpy.

librcl ends the process while it is loaded if RMW_IMPLEMENTATION names another middleware than it
has. So that is said here, before anything imports rclpy.
"""

import os
import sys

from qvla_ros.exit_codes import BAD_INPUT
from qvla_ros.ros_environment import installed_middlewares, middleware_errors

for _error in middleware_errors(os.environ, installed_middlewares(os.environ)):
    print(f"error: {_error}", file=sys.stderr)
    raise SystemExit(BAD_INPUT)
