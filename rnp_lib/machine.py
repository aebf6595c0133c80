"""Where something is computed: the device and its chip, threads, platform, package versions."""

import platform
import re
from pathlib import Path
from typing import Any

import torch

from rnp_lib.files import version

PACKAGES = ("torch", "torchvision", "numpy", "matplotlib", "scikit-learn", "rnp-lib")


def pick_device(name: str | torch.device | None) -> torch.device:
    """The device of that name; unless told, the GPU if there is one, else the CPU."""
    return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))


def machine(device: torch.device) -> dict[str, Any]:
    """What a record says of where it was made: device, threads, platform, package versions."""
    return {
        "device": _device_name(device),
        "threads": torch.get_num_threads(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": {
            "python": platform.python_version(),
            **{package: version(package) for package in PACKAGES},
        },
    }


def _device_name(device: torch.device) -> str:
    """The device and the chip behind it: "cpu (AMD EPYC 7B13)"."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    cpuinfo = Path("/proc/cpuinfo")  # Linux only; elsewhere Python knows the chip
    found = re.search(r"model name\s*: (.+)", cpuinfo.read_text() if cpuinfo.exists() else "")
    chip = found[1] if found else platform.processor()
    return f"{device} ({chip})" if chip else str(device)
