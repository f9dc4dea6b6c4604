"""Weights to codes and scales, and the row groups in which they are stored."""
