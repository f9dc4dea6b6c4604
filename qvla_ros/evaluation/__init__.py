"""Paired closed-loop evaluation: start the nodes, collect episodes, count, compare, and write the
report.
"""
