"""What stands between a machine, a ROS graph and a running policy: collected as facts, judged by
pure functions.
"""
