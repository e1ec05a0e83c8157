"""What systemd is told of this process: a line or two in a datagram (see sd_notify(3)).

Where the process was not started by systemd, nothing is told and nothing is asked.
"""

import logging
import os
import socket
from collections.abc import Mapping

log = logging.getLogger(__name__)


class Notifier:
    """The socket that the environment names. One thread is the only caller."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        """Read `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`; nothing is opened before `tell`."""
        path = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path
        usec, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
        for_us = pid in ("", str(os.getpid()))
        self.watchdog_s = int(usec) / 1e6 if self._address and usec.isdecimal() and for_us else 0.0
        """Without a WATCHDOG=1 for so long, systemd kills this process; 0 = it does not watch."""

    def tell(self, *assignments: str) -> bool:
        """Send `READY=1` and the like; whether it was sent. Never blocks and never raises."""
        if not self._address:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
                sender.sendto("\n".join(assignments).encode(), self._address)
        except OSError as error:  # its queue is full, or nobody listens any more
            log.warning("systemd was not told %s: %s", assignments[0], error)
            return False
        return True
