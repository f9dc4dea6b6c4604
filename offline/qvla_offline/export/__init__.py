"""Exports a checkpoint with its gates as one ONNX graph and the bundle around it."""
