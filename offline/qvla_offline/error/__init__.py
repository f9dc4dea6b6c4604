"""Measures the error of quantized policies: their actions against those of the float policy."""
