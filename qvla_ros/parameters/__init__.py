"""The parameters of the nodes as frozen dataclasses.

Their fields are the one table that declares, checks and documents them: `table` reads it, `policy`
and `bridge` are the two nodes' own.
"""
