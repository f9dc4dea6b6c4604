"""Recordings in the formats of the field: LeRobot datasets (read and written) and ROS 2 bags
(read).
"""
