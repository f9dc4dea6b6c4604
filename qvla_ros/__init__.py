"""The robot side of qvla: runs a quantized vision-language-action policy as a ROS 2 node.

It needs numpy, one engine and rclpy.
"""

__version__ = "0.1.0"
