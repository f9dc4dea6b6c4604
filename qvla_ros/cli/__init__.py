"""The `qvla` command: one module a verb."""
