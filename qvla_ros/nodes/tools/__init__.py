"""Nodes that watch other nodes: the recorder, and the doctor's reader of the running graph."""
