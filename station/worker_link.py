"""The engine's end of a worker: start it, talk to it, end it. One thread, the inspection stage, is the only
caller."""

import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from station.config import StationConfig
from station.slab import Slab
from station.worker import MAX_MESSAGE_BYTES
from station.worker_messages import WorkerMessage, WorkerMessageError, decode_message

log = logging.getLogger(__name__)

STOP_TIMEOUT_S = 3.0


def worker_command(config: StationConfig) -> list[str]:
    """The command that serves the configured model."""
    return [
        *(sys.executable, "-m", "station.worker"),
        *("--bundle", str(config.model.bundle), "--trusted-keys", str(config.trusted_keys)),
        *("--device", config.model.device, "--threads", str(config.model.threads)),
    ]


@dataclass(frozen=True, slots=True)
class Hangup:
    """There will be no more answers: the worker is dead or dying, or talks nonsense."""

    exit_text: str


class WorkerLink:
    """A running worker process."""

    def __init__(self, command: Sequence[str], slab: Slab) -> None:
        """Start the process; it reports `ready` or `failed` by message, seconds later.

        Raises:
            OSError: no process can be started now.
        """
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)
        fds = (theirs.fileno(), slab.fd)
        layout = (
            "--slots",
            str(slab.layout.slots),
            "--image-capacity-bytes",
            str(slab.layout.image_capacity_bytes),
        )
        with theirs:
            self._process = subprocess.Popen(
                [*command, "--link-fd", str(fds[0]), "--slab-fd", str(fds[1]), *layout],
                pass_fds=fds,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C in a terminal reaches the engine alone
                # OpenMP's threads spin while they wait for each other. Where another program wants a core
                # too, that made one inspection take 2200 ms instead of 80 (two cores).
                env={"OMP_WAIT_POLICY": "PASSIVE", **os.environ},
            )

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._process.pid

    def fileno(self) -> int:
        """Readable when a message or the hang-up waits."""
        return self._socket.fileno()

    def inspect(self, part_seq: int, slot: int, height: int, width: int) -> bool:
        """Hand over one image. False when the worker does not take messages any more."""
        request = {"part_seq": part_seq, "slot": slot, "height": height, "width": width}
        try:
            self._socket.send(json.dumps(request).encode())
        except (BlockingIOError, BrokenPipeError, ConnectionResetError):
            return False
        return True

    def receive(self) -> list[WorkerMessage | Hangup]:
        """All messages that have arrived; ends with a `Hangup` when there will be no more. Never blocks."""
        messages: list[WorkerMessage | Hangup] = []
        while True:
            try:
                data = self._socket.recv(MAX_MESSAGE_BYTES)
            except BlockingIOError:
                return messages
            except ConnectionResetError:
                data = b""
            if not data:
                messages.append(Hangup(self._exit_text()))
                return messages
            try:
                messages.append(decode_message(data))
            except WorkerMessageError as error:
                messages.append(Hangup(f"the worker said what is no answer ({error})"))
                return messages

    def _exit_text(self) -> str:
        try:
            status = self._process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            return "worker closed its link"
        return f"worker killed by signal {-status}" if status < 0 else f"worker exited with status {status}"

    def kill(self) -> None:
        """End it at once, stopped or hung as it may be, and collect it."""
        self._socket.close()
        self._process.kill()
        try:
            self._process.wait(timeout=STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:  # stuck in a driver; parts must not wait for it
            log.error("worker %d does not die; leaving it behind", self._process.pid)

    def stop(self) -> None:
        """Hang up and give it time to end; then kill it."""
        self._socket.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=STOP_TIMEOUT_S)
            return
        self.kill()
