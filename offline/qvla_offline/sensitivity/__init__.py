"""Scores how much each output channel matters at each bit-width.

The scores are those of the released scripts, or changes of the actions.
"""
