"""How much each output channel matters at each bit-width: as released, and in the space of the
actions.
"""
