"""Images, raw or compressed, of all cameras of a bundle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from sensor_msgs.msg import CompressedImage, Image

from qvla_ros.bundle import CameraSpec
from qvla_ros.control.setpoint import Setpoint
from qvla_ros.messages.compressed_image import rgb_pixels_of_compressed
from qvla_ros.messages.image import rgb_pixels
from qvla_ros.nodes.chunk_message import stamp_ns
from qvla_ros.nodes.policy.inputs.frozen_picture import FrozenPicture
from qvla_ros.nodes.policy.inputs.streams import Streams, outcome


class Cameras:
    """Subscribes to the cameras and adds their images to the streams.

    topics: camera name -> topic. seen(stamp_ns) is called for every image of the first camera, on
    the executor's thread. Compressed images are decoded on a thread a camera. arm: where it is
    measured, None if that is not known; max_equal_images: see FrozenPicture.
    """

    def __init__(
        self,
        streams: Streams,
        cameras: Sequence[CameraSpec],
        image_transport: str,
        seen: Callable[[int], None],
        arm: Callable[[], Setpoint | None],
        max_equal_images: int,
    ) -> None:
        self._streams = streams
        self._compressed = image_transport == "compressed"
        self._first = cameras[0].name if cameras else ""
        self._seen = seen
        self._arm = arm
        self._frozen = {camera.name: FrozenPicture(max_equal_images) for camera in cameras}
        self.topics = {camera.name: self._subscribe(camera) for camera in cameras}

    def _subscribe(self, camera: CameraSpec) -> str:
        topic = f"camera/{camera.name}/image_raw"
        if not self._compressed:
            return self._streams.subscribe(Image, topic, partial(self._on_image, camera))
        decoder = self._streams.worker(partial(self._decode, camera), f"decode {camera.name}")
        return self._streams.subscribe(CompressedImage, f"{topic}/compressed", decoder.submit)

    def _on_image(self, camera: CameraSpec, message: Image) -> None:
        topic = self.topics[camera.name]
        self._put(camera, message, lambda: rgb_pixels(message, topic, camera.height, camera.width))

    def _decode(self, camera: CameraSpec, message: CompressedImage) -> None:
        """Decodes an image; runs on the camera's own thread."""
        topic = self.topics[camera.name]
        pixels = outcome(
            lambda: rgb_pixels_of_compressed(message, topic, camera.height, camera.width)
        )
        self._streams.post(topic, lambda: self._put(camera, message, pixels))

    def _put(self, camera: CameraSpec, message: Any, pixels: Callable[[], Any]) -> None:
        moment_ns = stamp_ns(message.header.stamp)
        if camera.name == self._first:
            self._seen(moment_ns)
        topic = self.topics[camera.name]
        frozen = self._frozen[camera.name]
        self._streams.put(
            topic, moment_ns, lambda: frozen.require_change(pixels(), self._arm, topic)
        )
