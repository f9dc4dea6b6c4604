"""Compares quantizations of one checkpoint: action error, size, and success in closed loop."""
