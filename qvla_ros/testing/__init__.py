"""Stand-in robots and fault drills, for tests and benchmarks. No running robot needs them."""
