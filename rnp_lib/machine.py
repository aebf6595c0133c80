"""Where something was computed: the device and its chip, threads, platform, package versions."""

import platform
import re
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "torchvision", "numpy", "matplotlib", "scikit-learn", "rnp-lib")


def machine(device: torch.device) -> dict[str, Any]:
    """What a record says of where it was made: device, threads, platform, package versions."""
    return {
        "device": _device_name(device),
        "threads": torch.get_num_threads(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": _versions(),
    }


def _versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return versions


def _device_name(device: torch.device) -> str:
    """The device and the chip behind it: "cpu (AMD EPYC 7B13)"."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    cpuinfo = Path("/proc/cpuinfo")  # Linux only; elsewhere Python knows the chip
    found = re.search(r"model name\s*: (.+)", cpuinfo.read_text() if cpuinfo.exists() else "")
    chip = found[1] if found else platform.processor()
    return f"{device} ({chip})" if chip else str(device)
