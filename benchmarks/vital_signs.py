"""Memory, threads and open files of processes over their lives, from /proc."""

import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np


@dataclass(slots=True)
class Life:
    """One process: seconds since it was first seen, resident MB, threads and open files, a sample each."""

    name: str
    first_s: float
    at_s: list[float] = field(default_factory=list)
    resident_mb: list[float] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)

    def slope_mb_per_h(self, warm_up_s: float, shortest_s: float) -> float | None:
        """Of a line through the samples behind the warm-up; None where these span less than `shortest_s`."""
        at_s, resident_mb = np.array(self.at_s), np.array(self.resident_mb)
        warm = at_s >= warm_up_s
        if warm.sum() < 3 or at_s[warm][-1] - at_s[warm][0] < shortest_s:
            return None
        return float(np.polyfit(at_s[warm] / 3600, resident_mb[warm], 1)[0])


class VitalSigns:
    """Samples of every process that it is shown, by process id."""

    def __init__(self) -> None:
        self.lives: dict[int, Life] = {}

    def sample(self, name: str, pid: int) -> None:
        """Look at a process; one that has ended is let be."""
        try:
            status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
            files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        except OSError:
            return
        if "VmRSS" not in status:  # it has ended and waits to be collected
            return
        now_s = time.monotonic()
        life = self.lives.setdefault(pid, Life(name, now_s))
        life.at_s.append(now_s - life.first_s)
        life.resident_mb.append(int(status["VmRSS"].split()[0]) / 1024)
        life.threads.append(int(status["Threads"]))
        life.files.append(files)


def children(pid: int) -> list[int]:
    """Process ids of its children, whichever of its threads started them."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return []


def is_gone(pid: int) -> bool:
    """Whether a process has ended; one that waits to be collected has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
