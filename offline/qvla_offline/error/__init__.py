"""The error of quantized policies, measured: their actions against those of the float policy."""
