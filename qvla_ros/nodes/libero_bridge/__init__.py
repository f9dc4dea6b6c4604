"""The LIBERO bridge: the simulated robot on the same topics as a real one."""
