"""The engine's end of a worker process: start it, talk to it, end it."""

import contextlib
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from drivers.types import Frame
from station.config import StationConfig
from station.sections import InspectionSection
from station.slab import Slab
from station.worker_wire import MAX_MESSAGE_BYTES, Answer, Failed, Model, Ready, Request, encode

log = logging.getLogger(__name__)

_END_S = 3.0  # what a worker gets to end by itself, and a killed one to be gone
_EXIT_S = 0.2  # from the closed link of a process that dies to its status; parts wait meanwhile
_MESSAGES_AT_ONCE = 16  # a worker that floods us must not keep parts from their deadlines
_MESSAGE: TypeAdapter[Ready | Failed | Answer] = TypeAdapter(
    Annotated[Ready | Failed | Answer, Field(discriminator="kind")]
)


def worker_command(config: StationConfig, camera_id: str) -> list[str]:
    """The command that serves the model of a camera; several share the processor's cores."""
    shared = len(config.cameras) > 1 and not config.model.threads
    threads = max(1, (os.cpu_count() or 1) // len(config.cameras)) if shared else config.model.threads
    return [
        *(sys.executable, "-m", "station.worker"),
        *bundle_arguments(config.bundle_of(camera_id), config.trusted_keys),
        *("--device", config.model.device, "--threads", str(threads)),
    ]


def bundle_arguments(bundle: Path, trusted_keys: Path) -> list[str]:
    """What has a worker serve `bundle`; the last ones of a command count."""
    return ["--bundle", str(bundle), "--trusted-keys", str(trusted_keys)]


class BadMessage(Exception):
    """Bytes that no worker says; one line."""


def decode(data: bytes) -> Ready | Failed | Answer:
    """What a worker has said.

    Raises:
        BadMessage: its memory is damaged, or it is none.
    """
    try:
        return _MESSAGE.validate_json(data, strict=True)
    except ValidationError as error:
        what = error.errors(include_url=False, include_input=False)[0]["msg"]
        raise BadMessage(" ".join(what.split())[:200]) from error


@dataclass(frozen=True, slots=True)
class Hangup:
    """There will be no more messages: the worker is dead or dying, or what it says is none of ours."""

    why: str


class WorkerLink:
    """A worker process."""

    def __init__(self, command: Sequence[str], slab: Slab) -> None:
        """Start the process; it reports `Ready` or `Failed` seconds later.

        Raises:
            OSError: no process can be started now.
        """
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)
        self._patience_until_s = 0.0
        self._killed = False
        fds = (theirs.fileno(), slab.fd)
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [*command, "--link-fd", str(fds[0]), "--slab-fd", str(fds[1])],
                    pass_fds=fds,
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,  # Ctrl-C in a terminal reaches the engine alone
                    # OpenMP's threads spin while they wait for each other. Where another program wants a core
                    # too, that made one inspection take 2200 ms instead of 80 (two cores).
                    env={"OMP_WAIT_POLICY": "PASSIVE", **os.environ},
                )
            except OSError:
                self._socket.close()
                raise

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._process.pid

    def fileno(self) -> int:
        """Readable when a message or the hang-up waits."""
        return self._socket.fileno()

    def send(self, request: Request) -> bool:
        """Hand over one part. False when the worker does not take messages any more."""
        try:
            self._socket.send(encode(request))
        except (BlockingIOError, BrokenPipeError, ConnectionResetError):
            return False
        return True

    def receive(self) -> list[Ready | Failed | Answer | Hangup]:
        """Messages that have arrived, a few at a time; ends with a `Hangup` when there will be no more."""
        messages: list[Ready | Failed | Answer | Hangup] = []
        while len(messages) < _MESSAGES_AT_ONCE:
            try:
                data, _, flags, _ = self._socket.recvmsg(MAX_MESSAGE_BYTES)
            except BlockingIOError:
                break
            except ConnectionResetError:
                continue  # it closed with a request unread: told once, before what it said last
            if not data:
                return [*messages, Hangup(self._exit_text())]
            if flags & socket.MSG_TRUNC:
                too_long = f"worker sent a message of more than {MAX_MESSAGE_BYTES} bytes"
                return [*messages, Hangup(too_long)]
            try:
                messages.append(decode(data))
            except BadMessage as error:
                return [*messages, Hangup(f"worker sent what is no message: {error}")]
        return messages

    def _exit_text(self) -> str:
        try:
            status = self._process.wait(_EXIT_S)
        except subprocess.TimeoutExpired:
            return "worker closed its link"
        return f"worker killed by signal {-status}" if status < 0 else f"worker exited with status {status}"

    def hang_up(self) -> None:
        """Ask it to end: the closed link is all it needs to know. Then wait until it has `ended`."""
        self._socket.close()
        self._patience_until_s = time.monotonic() + _END_S

    def kill(self) -> None:
        """End it at once, stopped or hung as it may be. Then wait until it has `ended`."""
        self.hang_up()
        self._killed = True
        self._process.kill()

    def ended(self, wait: bool) -> bool:
        """Whether there is no more to be done about it: it is gone, or cannot even be killed.

        One that was asked to end and does not in time is killed here. Blocks, for seconds, with `wait` only.
        """
        left_s = self._patience_until_s - time.monotonic()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(max(left_s, 0.0) if wait else 0.0)
            return True
        if left_s > 0 and not wait:
            return False
        if not self._killed:
            self.kill()
            return False
        log.error("worker %d does not die; leaving it behind", self._process.pid)  # stuck in a driver
        return True


@dataclass(slots=True)
class Sent:
    """A part in a worker."""

    frame: Frame
    sent_ns: int
    decided: bool = False


@dataclass(slots=True, eq=False)
class Worker:
    """A worker process, its model once it is ready, and the parts in it, by slot."""

    link: WorkerLink
    started_s: float = field(default_factory=time.monotonic)
    model: Model | None = None
    parts: dict[int, Sent] = field(default_factory=dict)
    progress_ns: int = 0
    """When it last got somewhere: answered, or was given its first part."""

    def send(self, frame: Frame, slot: int, room: int) -> bool:
        """Hand over the part whose picture lies in `room`. False when the worker takes no messages."""
        height, width = frame.image_rgb.shape[:2]
        if not self.link.send(Request(frame.trigger.part_seq, slot, room, height, width)):
            return False
        now_ns = time.perf_counter_ns()
        if not self.parts:
            self.progress_ns = now_ns
        self.parts[slot] = Sent(frame, now_ns)
        return True

    def stuck(self, config: InspectionSection) -> str:
        """Why it must be killed; empty while it gets somewhere."""
        if self.model is None:
            if time.monotonic() - self.started_s > config.start_timeout_s:
                return f"the model was not ready within {config.start_timeout_s:g} s"
        elif self.parts:
            silent_ms = (time.perf_counter_ns() - self.progress_ns) / 1e6
            if silent_ms > config.hang_ms:
                return f"worker silent for {silent_ms:.0f} ms"
        return ""
