"""From action chunks to setpoints that a robot may be sent, as pure numpy: no ROS, no threads, no
clock of its own.
"""
