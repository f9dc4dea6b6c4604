"""Writes image_vectors.json: what TensorFlow makes of 300 random images, as hashes.

    python tests/data/make_image_vectors.py    (needs tensorflow, which nothing else here does)

It is OpenVLA-OFT's image chain (experiments/robot/libero/libero_utils.py and openvla_utils.py).
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

# height, width, size of the square that it becomes: a camera of LIBERO, a webcam, one that is
# smaller than the network's input, the bundled policy's, and one of another shape
SIZES = ((256, 256, 224), (480, 640, 224), (128, 128, 224), (128, 128, 112), (300, 200, 96))
IMAGES_A_SIZE = 60


def image(height: int, width: int, index: int) -> np.ndarray:
    """Noise, or with an odd index coloured squares: uint8 [height, width, 3]."""
    random = np.random.default_rng((height, width, index))
    if index % 2 == 0:
        return random.integers(0, 256, (height, width, 3), np.uint8)
    side = int(random.integers(5, 40))
    rows = -(-height // side)
    columns = -(-width // side)
    squares = random.integers(0, 256, (rows, columns, 3), np.uint8)
    return squares.repeat(side, 0).repeat(side, 1)[:height, :width]


def digest(pixels: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()[:16]


def main() -> None:
    import tensorflow as tf

    def resized(pixels: np.ndarray, size: int) -> np.ndarray:
        found = tf.image.resize(pixels, (size, size), method="lanczos3", antialias=True)
        return tf.cast(tf.clip_by_value(tf.round(found), 0, 255), tf.uint8).numpy()

    def through_jpeg(pixels: np.ndarray) -> np.ndarray:
        return tf.io.decode_image(tf.io.encode_jpeg(pixels), expand_animations=False).numpy()

    def cropped(pixels: np.ndarray) -> np.ndarray:
        values = tf.image.convert_image_dtype(tf.convert_to_tensor(pixels), tf.float32)
        side = tf.sqrt(tf.constant(0.9))
        start = (1 - side) / 2
        boxes = tf.reshape(tf.stack([start, start, start + side, start + side]), (1, 4))
        found = tf.image.crop_and_resize(values[None], boxes, [0], pixels.shape[:2])[0]
        clipped = tf.clip_by_value(found, 0, 1)
        return tf.image.convert_image_dtype(clipped, tf.uint8, saturate=True).numpy()

    cases = []
    for height, width, size in SIZES:
        lanczos = []
        chain = []
        for index in range(IMAGES_A_SIZE):
            source = image(height, width, index)
            lanczos.append(digest(resized(source, size)))
            turned = np.ascontiguousarray(source[::-1, ::-1])
            chain.append(digest(cropped(resized(through_jpeg(turned), size))))
        cases.append(
            {"height": height, "width": width, "size": size, "lanczos": lanczos, "chain": chain}
        )
    provenance = f"tensorflow {tf.__version__} on x86-64, glibc 2.36: make_image_vectors.py"
    target = Path(__file__).with_name("image_vectors.json")
    target.write_text(json.dumps({"provenance": provenance, "cases": cases}, indent=0) + "\n")


if __name__ == "__main__":
    main()
