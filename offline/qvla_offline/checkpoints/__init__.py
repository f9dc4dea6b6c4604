"""Checkpoints in the layout that OpenVLA-OFT publishes: read, run, write, and make small random
ones.
"""
