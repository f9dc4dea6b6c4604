"""Commands for a gripper: one file an output, beside how one is chosen."""
