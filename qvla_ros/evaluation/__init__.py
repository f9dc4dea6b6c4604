"""Paired closed-loop evaluation: starts the nodes, collects episodes, compares, writes the report."""
