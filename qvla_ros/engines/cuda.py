"""The few calls of CUDA that running a plan needs, from the driver's own library.

`libcuda.so.1` comes with every NVIDIA driver, desktop and Jetson, and its C functions keep their
binary interface. So no CUDA toolkit and no Python package has to match it. No GPU has run this file
yet (docs/measured.md).
"""

from __future__ import annotations

import ctypes
from ctypes import byref, c_char_p, c_int, c_size_t, c_uint64, c_void_p

import numpy as np
from numpy.typing import NDArray

from qvla_ros.errors import QvlaError

# CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
_MAJOR = 75
_MINOR = 76
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: do not wait for the default stream
_FIX = "run it on a machine with an NVIDIA GPU and driver, or use engine backend onnxruntime"


class Gpu:
    """The primary context of one GPU and one stream on it.

    Methods may be called from any thread, one at a time.
    """

    def __init__(self, device: int = 0) -> None:
        try:
            self._driver = ctypes.CDLL("libcuda.so.1")
        except OSError as error:
            raise QvlaError("GPU", error, "the NVIDIA driver library libcuda.so.1", _FIX) from None
        self._context = c_void_p()
        self._device = c_int()
        stream = c_void_p()
        self._call("cuInit", 0)
        self._call("cuDeviceGet", byref(self._device), device)
        self._call("cuDevicePrimaryCtxRetain", byref(self._context), self._device)
        self.use()
        self._call("cuStreamCreate", byref(stream), _NON_BLOCKING)
        self.stream: int = stream.value or 0

    def use(self) -> None:
        """Makes this GPU current for the calling thread; each thread needs that once."""
        self._call("cuCtxSetCurrent", self._context)

    @property
    def compute_capability(self) -> str:
        """Two digits or three, as "87" or "120"."""
        major = c_int()
        minor = c_int()
        self._call("cuDeviceGetAttribute", byref(major), _MAJOR, self._device)
        self._call("cuDeviceGetAttribute", byref(minor), _MINOR, self._device)
        return f"{major.value}{minor.value}"

    def allocate(self, size_bytes: int) -> int:
        """The address of new device memory, at least one byte."""
        address = c_uint64()
        self._call("cuMemAlloc_v2", byref(address), c_size_t(max(size_bytes, 1)))
        return address.value

    def free(self, address: int) -> None:
        """Gives back what `allocate` gave."""
        self._call("cuMemFree_v2", c_uint64(address))

    def upload(self, array: NDArray[np.generic], address: int) -> None:
        """Queue a copy of `array` (contiguous, kept alive until `synchronize`) to the device."""
        self._call(
            "cuMemcpyHtoDAsync_v2",
            c_uint64(address),
            array.ctypes.data_as(c_void_p),
            c_size_t(array.nbytes),
            self._s,
        )

    def download(self, address: int, array: NDArray[np.generic]) -> None:
        """Queue a copy from the device into `array` (contiguous)."""
        self._call(
            "cuMemcpyDtoHAsync_v2",
            array.ctypes.data_as(c_void_p),
            c_uint64(address),
            c_size_t(array.nbytes),
            self._s,
        )

    def synchronize(self) -> None:
        """Waits for all that was queued."""
        self._call("cuStreamSynchronize", self._s)

    def close(self) -> None:
        """Destroy the stream and let go of the context."""
        self.use()
        self._call("cuStreamDestroy_v2", self._s)
        self._call("cuDevicePrimaryCtxRelease_v2", self._device)

    @property
    def _s(self) -> c_void_p:
        return c_void_p(self.stream)

    def _call(self, function: str, *arguments: object) -> None:
        if status := getattr(self._driver, function)(*arguments):
            text = c_char_p()
            self._driver.cuGetErrorString(status, byref(text))
            message = text.value.decode() if text.value else "unknown error"
            raise QvlaError(f"GPU ({function})", f"CUDA error {status}: {message}", "success", _FIX)
