"""Rounds the inputs of the quantized layers too, as fake-quant in torch; no engine does it yet."""
