"""From a checkpoint and its gates to one ONNX graph and the bundle around it."""
