"""Compressed images: decoded off the executor's thread, refused by topic."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image as PillowImage
from sensor_msgs.msg import CompressedImage

from qvla_ros.bundle import Bundle
from qvla_ros.parameters.policy import EXECUTORS

SIZE = 32


def _jpeg(colour: tuple[int, int, int]) -> bytes:
    buffer = io.BytesIO()
    PillowImage.new("RGB", (SIZE, SIZE), colour).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


@pytest.mark.parametrize("executor", EXECUTORS)
def test_compressed_images_are_decoded_on_another_thread_and_delivered_on_the_executors(
    bench: Callable, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, executor: str
) -> None:
    from qvla_ros.nodes.policy.inputs import cameras

    decoders: set[str] = set()
    decode = cameras.rgb_pixels_of_compressed

    def watched(*args: Any) -> Any:
        decoders.add(threading.current_thread().name)
        return decode(*args)

    monkeypatch.setattr(cameras, "rgb_pixels_of_compressed", watched)
    rig = bench(image_transport="compressed", executor=executor)

    def send() -> None:
        for camera in bundle.cameras:
            message = rig.stamped(CompressedImage(format="jpeg", data=_jpeg((200, 30, 60))))
            rig.publish(CompressedImage, f"/x/camera/{camera.name}/image_raw/compressed", message)
        rig.send_state(rig.fingers())

    observation = rig.observe(send)
    for camera in bundle.cameras:
        np.testing.assert_allclose(
            observation.images[camera.name].mean((0, 1)), (200, 30, 60), atol=3
        )
    assert decoders == {f"decode {camera.name}" for camera in bundle.cameras}
    assert rig.threads == {threading.main_thread().name}


def test_a_broken_compressed_image_is_refused_by_topic_and_mended_by_a_whole_one(
    bench: Callable, bundle: Bundle
) -> None:
    rig = bench(image_transport="compressed")
    topic = f"/x/camera/{bundle.cameras[0].name}/image_raw/compressed"
    rig.publish(
        CompressedImage,
        topic,
        rig.stamped(CompressedImage(format="jpeg", data=_jpeg((0, 0, 0))[:100])),
    )
    rig.wait(lambda: f"image on {topic}" in rig.inputs.poll(), "a refusal")
    rig.publish(
        CompressedImage, topic, rig.stamped(CompressedImage(format="jpeg", data=_jpeg((0, 0, 0))))
    )
    rig.wait(lambda: topic not in rig.inputs.poll(), "the refusal to go")


@pytest.mark.parametrize("executor", EXECUTORS)
def test_what_goes_wrong_on_a_thread_for_slow_work_is_raised_where_the_node_ends_of_it(
    bench: Callable, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, executor: str
) -> None:
    from qvla_ros.nodes.policy.inputs import cameras

    def broken(*_: Any) -> Any:
        raise ZeroDivisionError("the decoder")

    monkeypatch.setattr(cameras, "rgb_pixels_of_compressed", broken)
    rig = bench(image_transport="compressed", executor=executor)
    topic = f"/x/camera/{bundle.cameras[0].name}/image_raw/compressed"
    rig.publish(
        CompressedImage, topic, rig.stamped(CompressedImage(format="jpeg", data=_jpeg((0, 0, 0))))
    )

    def raised() -> bool:
        try:
            rig.inputs.poll()
        except ZeroDivisionError:
            return True
        return False

    rig.wait(raised, "the decoder's error")
    rig.inputs.poll()  # told once
