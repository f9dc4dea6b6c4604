"""Turns weights into codes and scales, and into the row groups in which they are stored."""
