"""The inputs and commands of a policy: the parts of a bundle's manifest, each valid once made.

They are written in `bundle.json` (qvla_ros.manifest), and nothing here reads or writes a file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from qvla_ros.errors import QvlaError

FIX_MANIFEST = "export the bundle again with `qvla export`; bundle files are not meant to be edited"

Normalization = Literal["q99", "bounds"]
# What the un-normalised gripper column of the model means; see qvla_ros.actions.opening_fraction.
GripperConvention = Literal["opening_fraction", "closing_fraction", "signed_closing"]


def require(condition: bool, key: str, value: object, expected: str) -> None:
    """Raises QvlaError about an entry of the manifest unless `condition` holds."""
    if not condition:
        raise QvlaError(key, value, expected, FIX_MANIFEST)


def unique(names: tuple[str, ...]) -> bool:
    """Whether there is a name, none is empty, and none is there twice."""
    return len(names) > 0 and len(set(names)) == len(names) and all(names)


@dataclass(frozen=True)
class CameraSpec:
    """One camera as the policy reads it: the published size, then the preprocessing chain.

    See qvla_ros.preprocess.

    bicubic_size: side of the square that the image is made first of all, as ALOHA's are; null: left
    as it is. resize_size: side of the Lanczos resize and the crop, where the graph takes another
    one: OpenVLA's evaluations fix it at 224, and their image processor makes input_size of it;
    null: input_size.
    """

    name: str
    height: int
    width: int
    rotate_180: bool
    jpeg_quality: int | None
    input_size: int
    center_crop_area: float | None
    normalizations: tuple[tuple[tuple[float, float, float], tuple[float, float, float]], ...]
    bicubic_size: int | None = None
    resize_size: int | None = None

    def __post_init__(self) -> None:
        key = f"camera {self.name!r}"
        require(
            self.name.isidentifier(),
            f"{key}.name",
            self.name,
            "letters, digits and _ (it is part of a topic)",
        )
        for name in ("height", "width", "input_size"):
            require(
                1 <= getattr(self, name) <= 8192,
                f"{key}.{name}",
                getattr(self, name),
                "1 to 8192 pixels",
            )
        for name in ("bicubic_size", "resize_size"):
            side = getattr(self, name)
            require(
                side is None or 1 <= side <= 8192,
                f"{key}.{name}",
                side,
                "1 to 8192 pixels, or null",
            )
        quality = self.jpeg_quality
        area = self.center_crop_area
        require(
            quality is None or 1 <= quality <= 100,
            f"{key}.jpeg_quality",
            quality,
            "1 to 100, or null",
        )
        require(
            area is None or 0 < area <= 1,
            f"{key}.center_crop_area",
            area,
            "a fraction in (0, 1], or null",
        )
        require(
            len(self.normalizations) > 0,
            f"{key}.normalizations",
            "none",
            "at least one (mean, std)",
        )
        stds = [value for _, std in self.normalizations for value in std]
        require(min(stds) > 0, f"{key}.normalizations", stds, "standard deviations above 0")

    @property
    def lanczos_size(self) -> int:
        """Side in pixels that the Lanczos resize makes and the crop keeps."""
        return self.resize_size or self.input_size


@dataclass(frozen=True)
class ProprioceptionSpec:
    """The robot's own state, one name per number.

    Names are `eef_x` ... `eef_axis_angle_z` or a joint's name in JointState.
    """

    names: tuple[str, ...]
    normalization: Normalization

    def __post_init__(self) -> None:
        require(
            unique(self.names),
            "proprioception.names",
            list(self.names),
            "distinct names, at least one",
        )


@dataclass(frozen=True)
class PromptSpec:
    """The prompt around an instruction.

    `append_token_id` (29871 for Llama-2 OpenVLA) is made to end it.
    """

    template: str
    lowercase: bool
    append_token_id: int | None

    def __post_init__(self) -> None:
        found = self.template.count("{instruction}")
        require(
            found == 1,
            "prompt.template",
            repr(self.template),
            "a text that holds {instruction} once",
        )


@dataclass(frozen=True)
class ActionSpec:
    """The actions that the policy commands, with one name and unit per number.

    There are `chunk_length` actions, one every `control_period_s`.

    limits: (low, high) per action in `units`, clipped to before anything is published; null: the
    range (min, max) that the training data had, and [0, 1] for the gripper.
    """

    names: tuple[str, ...]
    kind: str
    frame: str
    units: tuple[str, ...]
    gripper_index: int | None
    gripper_convention: GripperConvention | None
    chunk_length: int
    control_period_s: float
    normalization: Normalization
    limits: tuple[tuple[float, float], ...] | None = None

    def __post_init__(self) -> None:
        count = len(self.names)
        index = self.gripper_index
        require(
            unique(self.names), "actions.names", list(self.names), "distinct names, at least one"
        )
        require(
            len(self.units) == count,
            "actions.units",
            list(self.units),
            f"{count} units, one a name",
        )
        require(
            index is None or 0 <= index < count,
            "actions.gripper_index",
            index,
            f"0 to {count - 1}, or null",
        )
        both = (index is None) == (self.gripper_convention is None)
        require(
            both,
            "actions.gripper_convention",
            self.gripper_convention,
            "set if and only if gripper_index is",
        )
        require(
            1 <= self.chunk_length <= 1024,
            "actions.chunk_length",
            self.chunk_length,
            "1 to 1024 actions",
        )
        require(
            0 < self.control_period_s <= 10,
            "actions.control_period_s",
            self.control_period_s,
            "seconds in (0, 10]",
        )
        if self.limits is not None:
            require(
                len(self.limits) == count,
                "actions.limits",
                len(self.limits),
                f"{count} pairs, one a name",
            )
            require(
                all(low < high for low, high in self.limits),
                "actions.limits",
                self.limits,
                "low < high",
            )


@dataclass(frozen=True)
class QuantizationSummary:
    """The storage of the weights; `method` "none" and 16 bits for a float policy."""

    method: str
    gates_sha256: str | None
    nominal_bits_per_weight: float
    stored_bits_per_weight: float
    weight_bytes: int
    float16_weight_bytes: int
    group_size: int | None


@dataclass(frozen=True)
class Statistics:
    """Statistics of one vector in the training data, each float64 [D].

    mask: which entries were normalised.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    min: NDArray[np.float64]
    max: NDArray[np.float64]
    mask: NDArray[np.bool_]
