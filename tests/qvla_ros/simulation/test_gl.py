"""A variable that keeps the simulated robot from drawing is named, and unsetting it helps."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from qvla_ros.simulation.gl import GL_LIBRARIES, drawing_error, gl_errors

DRAW = """
from qvla_ros.errors import QvlaError
from qvla_ros.simulation.libero import LiberoTask
try:
    with LiberoTask("libero_object", 7, camera_size=16) as task:
        print("drawn", task.reset(0).images["wrist"].shape)
except QvlaError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"MUJOCO_GL": "opengl"}, "MUJOCO_GL"),
        ({"MUJOCO_GL": "glx"}, "MUJOCO_GL"),
        ({"PYOPENGL_PLATFORM": "glx"}, "PYOPENGL_PLATFORM"),
        ({"PYOPENGL_PLATFORM": "egl", "MUJOCO_GL": "osmesa"}, "PYOPENGL_PLATFORM"),
        ({"MUJOCO_EGL_DEVICE_ID": ""}, "MUJOCO_EGL_DEVICE_ID"),
        ({"MUJOCO_EGL_DEVICE_ID": "0,1"}, "MUJOCO_EGL_DEVICE_ID"),
        ({"MUJOCO_EGL_DEVICE_ID": "1"}, "MUJOCO_EGL_DEVICE_ID"),
        ({"CUDA_VISIBLE_DEVICES": "GPU-8a2b"}, "CUDA_VISIBLE_DEVICES"),
        ({"CUDA_VISIBLE_DEVICES": ""}, "CUDA_VISIBLE_DEVICES"),
        ({"CUDA_VISIBLE_DEVICES": "2,0"}, "CUDA_VISIBLE_DEVICES"),
        ({"MUJOCO_EGL_DEVICE_ID": "0", "CUDA_VISIBLE_DEVICES": "1"}, "MUJOCO_EGL_DEVICE_ID"),
    ],
)
def test_the_variable_is_named_and_the_advice_mends_it(given: dict[str, str], name: str) -> None:
    [error] = gl_errors(given, devices=1)
    assert error.key == name
    assert given[name] in str(error.value)
    verb, _, rest = error.fix.partition(" ")
    mended = dict(given)
    if verb == "unset":
        del mended[rest]
    else:
        mended |= dict([rest.split("=")])
    assert list(gl_errors(mended, devices=1)) == []


@pytest.mark.parametrize(
    "given",
    [
        *({}, {"MUJOCO_GL": "EGL"}, {"MUJOCO_GL": "off"}, {"CUDA_VISIBLE_DEVICES": "0,1"}),
        {"MUJOCO_GL": "glx", "DISPLAY": ":0"},
        {"MUJOCO_GL": "osmesa", "CUDA_VISIBLE_DEVICES": "GPU-8a2b"},
        {"MUJOCO_EGL_DEVICE_ID": "0", "CUDA_VISIBLE_DEVICES": ""},
    ],
)
def test_what_draws_is_no_error(given: dict[str, str]) -> None:
    assert list(gl_errors(given, devices=1)) == []


def test_other_failures_of_opengl_keep_their_words() -> None:
    missing = AttributeError("'NoneType' object has no attribute 'glGetError'")
    assert drawing_error(missing, {"MUJOCO_GL": "osmesa"}).fix == GL_LIBRARIES["osmesa"]
    other = drawing_error(RuntimeError("out of memory"), {})
    assert "out of memory" in str(other.value)
    assert "not known" in other.fix


@pytest.mark.simulation
def test_a_device_that_is_not_there_is_refused_by_the_simulator_and_unset_it_draws() -> None:
    given = {**os.environ, "MUJOCO_EGL_DEVICE_ID": "7"}
    refused = subprocess.run(
        [sys.executable, "-c", DRAW], env=given, capture_output=True, text=True
    )
    assert "MUJOCO_EGL_DEVICE_ID: got '7'; expected the number of an EGL device" in refused.stdout
    del given[refused.stdout.strip().rpartition("unset ")[2]]
    drawn = subprocess.run([sys.executable, "-c", DRAW], env=given, capture_output=True, text=True)
    assert drawn.stdout.strip() == "drawn (16, 16, 3)"
