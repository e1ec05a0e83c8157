"""Tables on the screen, the machine they were measured on, and JSON."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch


def machine_facts() -> dict[str, str | int | float]:
    """Return what a figure depends on: processor, cores, threads, load, versions and date (UTC)."""
    facts: dict[str, str | int | float] = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "torch_threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": platform.platform(terse=True),
    }
    if hasattr(os, "getloadavg"):
        facts["load_1min_at_start"] = round(os.getloadavg()[0], 2)
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
    return facts


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
        vectors = " ".join(v for v in ("avx2", "avx512f") if any(v in line.split() for line in lines))
        return f"{model} ({vectors})" if model else platform.machine()
    return platform.processor() or platform.machine()


def print_facts(facts: Mapping[str, str | int | float]) -> None:
    print("\n".join(f"{name:20} {value}" for name, value in facts.items()), end="\n\n", flush=True)


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under the header: the first column flush left, the others flush right."""
    widths = [max(len(row[k]) for row in (header, *rows)) for k in range(len(header))]
    for row in (header, ["-" * width for width in widths], *rows):
        cells = (
            c.ljust(w) if k == 0 else c.rjust(w) for k, (c, w) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join(cells).rstrip())


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write content to path, which is replaced only once it is complete."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)
