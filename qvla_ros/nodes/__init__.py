"""ROS 2 nodes: thin shells around the pure core. Nothing outside this package imports rclpy."""
