"""Checkpoints: their files, their networks, loading, saving, and random ones."""
