"""Runs a model block by block, so that the weights of one block at a time are enough."""
