"""The robot side of qvla: a quantized vision-language-action policy as a ROS 2 node (numpy, one
engine, rclpy).
"""

__version__ = "0.1.0"
