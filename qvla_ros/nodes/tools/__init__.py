"""Nodes that watch others: the recorder, and the doctor's view of the running graph."""
