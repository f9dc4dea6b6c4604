"""Reads and writes LeRobot datasets, and reads ROS 2 bags and JSONL files."""
