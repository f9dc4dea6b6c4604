"""Checks whether a machine, a bundle and a ROS graph can run a policy.

Facts are collected first; pure functions judge them.
"""
