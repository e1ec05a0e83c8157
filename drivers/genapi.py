"""What GenICam cameras of every SDK have in common: block ids and persistence (settings) files."""

import math


class FrameIds:
    """Rising frame ids from block ids that wrap at 16 bits (GigE Vision 1.x: 65535 -> 1) and restart."""

    def __init__(self) -> None:
        """As after StartGrabbing."""
        self._base = 0
        self._last_block = -1
        self._last_id = -1

    def of(self, block_id: int) -> int:
        """The frame id of the next buffer."""
        if self._last_block - block_id > 32768:
            self._base += 65535
        self._last_block = block_id
        self._last_id = self._base + block_id
        return self._last_id

    def restart(self) -> None:
        """Grabbing starts anew; the device's counter too."""
        self._base = self._last_id + 1
        self._last_block = -1


def settings_of(text: str) -> dict[str, str]:
    """Name (with its selector) -> value of a GenApi persistence file."""
    settings = {}
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            name, _, value = line.rpartition("\t")
            settings[name.strip()] = value.strip()
    return settings


def same_value(wanted: str, actual: str) -> bool:
    """Equal as numbers where both are numbers, else as text."""
    try:
        return math.isclose(float(wanted), float(actual), rel_tol=1e-4)
    except ValueError:
        return wanted == actual
