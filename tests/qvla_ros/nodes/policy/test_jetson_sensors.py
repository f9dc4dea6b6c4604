"""Readings of a Jetson, from a copy of the part of /sys that NVIDIA documents."""

from __future__ import annotations

from pathlib import Path

from qvla_ros.nodes.policy.jetson_sensors import jetson_sensors


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")


def test_the_gpus_zone_and_the_rails_that_feed_it_are_read(tmp_path: Path) -> None:
    monitor = "bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1"
    rails = {
        "in1_label": "VDD_GPU_SOC",
        "in1_input": "5000",
        "curr1_input": "1200",
        "in2_label": "VDD_CPU_CV",
    }
    write(tmp_path, {f"{monitor}/{name}": text for name, text in rails.items()})
    write(
        tmp_path,
        {
            f"{monitor}/in2_input": "5000",
            f"{monitor}/curr2_input": "800",
            f"{monitor}/in3_label": "VDD_IN",
        },
    )
    zones = {"thermal_zone0/type": "cpu-thermal", "thermal_zone0/temp": "48000"}
    zones |= {"thermal_zone1/type": "gpu-thermal", "thermal_zone1/temp": "51500"}
    write(tmp_path, {f"class/thermal/{name}": text for name, text in zones.items()})
    # VDD_IN shows no current here: left out, not taken for 0 W.
    assert jetson_sensors(tmp_path) == {"gpu-thermal (°C)": "51.5", "VDD_GPU_SOC (W)": "6.00"}


def test_another_machine_has_none(tmp_path: Path) -> None:
    write(
        tmp_path,
        {"class/thermal/thermal_zone0/type": "amdgpu", "class/thermal/thermal_zone0/temp": "51500"},
    )
    assert jetson_sensors(tmp_path) == {}
