"""Bags of what a policy saw and did: written while it runs, read back, run again, compared. Needs
no ROS install.
"""
