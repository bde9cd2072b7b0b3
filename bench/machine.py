"""Names the machine that figures come from."""

import os
import platform
import subprocess
from pathlib import Path
from typing import Any


def describe() -> dict[str, Any]:
    """Processor, cores, kernel, Python, compiler, and how busy the machine was."""
    return {
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "virtual": " hypervisor" in Path("/proc/cpuinfo").read_text(),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "compiler": _compiler(),
        "load_average": round(os.getloadavg()[0], 2),
    }


def _processor() -> str:
    fields: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip(), value.strip())
    name = fields.get("model name", platform.machine())
    if "cpu family" in fields:
        name += f" (family {fields['cpu family']}, model {fields.get('model', '?')})"
    return name


def _compiler() -> str:
    command = [os.environ.get("CC", "cc"), "--version"]
    try:
        output = subprocess.run(command, capture_output=True, text=True).stdout
    except OSError:
        return "no compiler"
    return output.partition("\n")[0]
