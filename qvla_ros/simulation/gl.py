"""The environment variables that decide how MuJoCo and robosuite draw without a screen.

robosuite 1.4 (renderers/context/egl_context.py) takes CUDA_VISIBLE_DEVICES for numbers of EGL
devices, and most of its errors name another variable than the one that is wrong, or none.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator, Mapping

from qvla_ros.errors import NO_KNOWN_FIX, QvlaError

# What MuJoCo takes on Linux; robosuite draws by EGL unless it is osmesa or glx.
_MUJOCO_GL = frozenset(
    ("egl", "osmesa", "glx", "glfw", "on", "off", "true", "false", "1", "0", "")
    + ("enable", "enabled", "disable", "disabled")
)
_WRAPPERS = ("/OpenGL/", "/mujoco/egl/", "/mujoco/osmesa/", "/renderers/context/")
_DEVICES = re.compile(r"between 0 and (\d+) \(inclusive\)")
# On Debian and Ubuntu, by the value of MUJOCO_GL.
GL_LIBRARIES = {
    "egl": "sudo apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri",
    "osmesa": "sudo apt-get install libosmesa6, or export MUJOCO_GL=egl",
}


def gl_errors(environment: Mapping[str, str], devices: int | None = None) -> Iterator[QvlaError]:
    """What keeps the simulated robot from drawing, one error a variable.

    devices: how many EGL devices there are; None: not known.
    """
    backend = environment.get("MUJOCO_GL", "egl").lower().strip()
    if backend not in _MUJOCO_GL:
        found = repr(environment["MUJOCO_GL"])
        yield QvlaError("MUJOCO_GL", found, "egl or osmesa", "export MUJOCO_GL=egl")
        return
    if backend == "glx":
        if not environment.get("DISPLAY"):
            expected = "egl or osmesa: there is no screen (DISPLAY is not set)"
            yield QvlaError("MUJOCO_GL", "'glx'", expected, "export MUJOCO_GL=egl")
        return
    platform = "osmesa" if backend == "osmesa" else "egl"
    given = environment.get("PYOPENGL_PLATFORM", "")
    if given and given.lower() != platform:
        expected = f"{platform}, as MUJOCO_GL asks for it"
        yield QvlaError("PYOPENGL_PLATFORM", repr(given), expected, "unset PYOPENGL_PLATFORM")
    if platform == "egl":
        yield from _device(environment, devices)


def _device(environment: Mapping[str, str], devices: int | None) -> Iterator[QvlaError]:
    """Which EGL device is drawn on: MUJOCO_EGL_DEVICE_ID, or the first of CUDA_VISIBLE_DEVICES."""
    own = environment.get("MUJOCO_EGL_DEVICE_ID")
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    name = "CUDA_VISIBLE_DEVICES" if own is None else "MUJOCO_EGL_DEVICE_ID"
    chosen = visible if own is None else own
    if chosen is None:
        return
    many = "an EGL device" if devices is None else f"an EGL device from 0 to {devices - 1}"
    parts = [part.strip() for part in chosen.split(",")]
    is_number = all(part.isdigit() for part in parts) and (own is None or len(parts) == 1)
    if not is_number or (devices is not None and int(parts[0]) >= devices):
        yield QvlaError(name, repr(chosen), f"the number of {many}", f"unset {name}")
    elif own is not None and visible and own not in visible:
        expected = f"one of CUDA_VISIBLE_DEVICES, which is {visible!r}"
        yield QvlaError(name, repr(own), expected, "unset CUDA_VISIBLE_DEVICES")


def is_of_opengl(error: Exception) -> bool:
    """Whether an error was raised in OpenGL's wrappers."""
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    return any(wrapper in file for file in files for wrapper in _WRAPPERS)


def drawing_error(error: Exception, environment: Mapping[str, str]) -> QvlaError:
    """The variable that made OpenGL fail; without one, its own words."""
    found = _DEVICES.search(str(error))
    for wrong in gl_errors(environment, None if found is None else int(found[1]) + 1):
        return wrong
    backend = environment.get("MUJOCO_GL", "egl")
    # PyOpenGL looks a missing library's functions up in None.
    is_missing = isinstance(error, ImportError) or "'NoneType' object has no" in str(error)
    fix = GL_LIBRARIES.get(backend, NO_KNOWN_FIX) if is_missing else NO_KNOWN_FIX
    return QvlaError(f"OpenGL (MUJOCO_GL={backend})", error, "a context to draw in", fix)
