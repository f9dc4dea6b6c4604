"""The stages of `qvla reference`."""
