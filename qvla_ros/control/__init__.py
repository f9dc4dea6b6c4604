"""Turns action chunks into setpoints that a robot may be sent.

Pure numpy: no ROS, no threads, no clock of its own.
"""
