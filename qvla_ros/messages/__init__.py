"""Reads ROS messages without rclpy: images and states, from live nodes and from bags alike."""
