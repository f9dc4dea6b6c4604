"""Writes and reads bags of a policy's inputs and chunks, and replays them. Needs no ROS install."""
