"""Temperature and power of a Jetson's GPU as the kernel shows them under /sys; nothing elsewhere.

Layout as NVIDIA documents it for Orin: thermal zones with a type such as `gpu-thermal`,
temperatures in thousandths of a degree; INA3221 monitors with one label, voltage (mV) and current
(mA) for each rail.
"""

from __future__ import annotations

from pathlib import Path

SYS = Path("/sys")
_GPU_RAILS = ("GPU", "VDD_IN")  # the rail that feeds the GPU, and the module's input


def jetson_sensors(sys_root: Path = SYS) -> dict[str, str]:
    """Name with unit -> reading, of what can be read; empty where there is no such sensor."""
    if not (
        sys_root / "bus/i2c/drivers/ina3221"
    ).is_dir():  # a desktop has thermal zones too, but not of a Jetson's GPU
        return {}
    return {**_temperatures(sys_root), **_powers(sys_root)}


def _temperatures(sys_root: Path) -> dict[str, str]:
    readings = {}
    for zone in sorted((sys_root / "class/thermal").glob("thermal_zone*")):
        kind = _read(zone / "type")
        milli = _number(zone / "temp")
        if "gpu" in kind.lower() and milli is not None:
            readings[f"{kind} (°C)"] = f"{milli / 1e3:.1f}"
    return readings


def _powers(sys_root: Path) -> dict[str, str]:
    readings = {}
    for label in sorted((sys_root / "bus/i2c/drivers/ina3221").glob("*/hwmon/hwmon*/in*_label")):
        rail = _read(label)
        channel = label.name.removeprefix("in").removesuffix("_label")
        milli_volts = _number(label.with_name(f"in{channel}_input"))
        milli_amperes = _number(label.with_name(f"curr{channel}_input"))
        if (
            any(part in rail for part in _GPU_RAILS)
            and milli_volts is not None
            and milli_amperes is not None
        ):
            readings[f"{rail} (W)"] = f"{milli_volts * milli_amperes * 1e-6:.2f}"
    return readings


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _number(path: Path) -> float | None:
    try:
        return float(_read(path))
    except ValueError:
        return None
