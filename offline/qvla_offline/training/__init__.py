"""Trains scales and biases of quantized layers against the float policy; the codes stay."""
