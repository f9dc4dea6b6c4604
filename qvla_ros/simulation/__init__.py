"""Simulated robots and the rollouts, faults and clocks that go with them. Imports no ROS."""
