"""Who may connect to the line's sockets: answers libzmq's questions (ZAP, ZeroMQ RFC 27) from the keys."""

import logging
import math
import time
from typing import Any

import zmq

from station.wire_keys import LineKeys

log = logging.getLogger(__name__)

_QUESTIONS = "inproc://zeromq.zap.01"
_WARN_EVERY_S = 60.0


class Doorkeeper:
    """One for a context, made before its sockets are bound; the thread that owns these calls `answer`."""

    def __init__(self, context: "zmq.Context[Any]", keys: LineKeys | None) -> None:
        """Without keys nothing is ever asked, and everybody who reaches a socket is in.

        Raises:
            zmq.ZMQError: the context has another one already.
        """
        self.questions: zmq.Socket[Any] = context.socket(zmq.REP)
        self.questions.bind(_QUESTIONS)
        self._keys = keys
        self._warned_s = -math.inf

    def lock(self, socket: "zmq.Socket[Any]") -> None:
        """Have a socket that is not bound yet encrypt, and ask here."""
        if self._keys:
            socket.setsockopt(zmq.CURVE_SERVER, 1)
            socket.setsockopt(zmq.CURVE_SECRETKEY, self._keys.secret)
            socket.setsockopt(zmq.ZAP_DOMAIN, b"station")  # nobody is let in when nobody answers

    def answer(self) -> None:
        """Answer the question that waits."""
        version, request_id, _domain, address, _identity, mechanism, *credentials = (
            self.questions.recv_multipart()
        )
        status, text = b"200", b"OK"
        if mechanism != b"CURVE" or self._keys is None or not self._keys.allows(*credentials):
            # Not 400: such a client never tries again, not even when its key has been put there since.
            status, text = b"300", b"unknown key"
            self._warn(address)
        self.questions.send_multipart([version, request_id, status, text, b"", b""])

    def _warn(self, address: bytes) -> None:
        """Those who are turned away come again many times a second."""
        if time.monotonic() - self._warned_s > _WARN_EVERY_S:
            self._warned_s = time.monotonic()
            log.warning("a screen at %s was turned away: unknown key", address.decode("ascii", "replace"))
