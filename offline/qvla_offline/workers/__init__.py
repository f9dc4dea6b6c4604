"""Processes that work is spread over: on this machine, or on a Ray cluster."""
