"""Paired closed-loop evaluation: runs the nodes, collects episodes, compares, writes the report."""
