"""What the engine publishes, for the GUI thread: received, decoded and resized in a thread of its own.

Between the two lies a latest-only mailbox: a slow screen shows now, not five seconds ago, and stays small.
"""

import threading
import time
from collections import deque
from dataclasses import dataclass, field

from PySide6.QtCore import QObject, Signal

from station.client import LineSubscriber, ScreenKeys
from station.types import Preview, StatusMessage, Verdict, VerdictMessage
from ui.picture import Picture, from_preview

STALE_S = 2.0
KEPT_NOT_PASSED = 5  # as many as the strip of last rejects shows
_POLL_MS = 100  # how long closing may take


@dataclass(slots=True)
class Mail:
    """What has come since the mailbox was last emptied; every field is bounded.

    Attributes:
        verdict: the latest.
        not_passed: the latest few that did not pass, oldest first.
        not_passed_pictures: the pictures of parts that did not pass, oldest first.
    """

    status: StatusMessage | None = None
    picture: Picture | None = None
    verdict: VerdictMessage | None = None
    not_passed: deque[VerdictMessage] = field(default_factory=lambda: deque(maxlen=KEPT_NOT_PASSED))
    not_passed_pictures: deque[Picture] = field(default_factory=lambda: deque(maxlen=KEPT_NOT_PASSED))


class Feed(QObject):
    """Receives until closed.

    Signals:
        arrived: there is mail; `take` empties the mailbox. Never queued twice.
    """

    arrived = Signal()

    def __init__(
        self, host: str, port: int, keys: ScreenKeys | None = None, parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self.address = f"{host}:{port}"
        self._host, self._port, self._keys = host, port, keys
        self._lock = threading.Lock()
        self._mail = Mail()
        self._announced = False
        self._box_px = (640, 480)
        self._started_s = time.monotonic()
        self._status_s: float | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._receive, name="feed")

    def start(self) -> None:
        """Begin to receive."""
        self._thread.start()

    def close(self) -> None:
        """Stop receiving and join the thread."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def fit_pictures(self, width_px: int, height_px: int) -> None:
        """Resize pictures to this box from now on."""
        self._box_px = (width_px, height_px)

    def take(self) -> Mail:
        """All mail since the last call; leaves the mailbox empty."""
        with self._lock:
            mail, self._mail, self._announced = self._mail, Mail(), False
        return mail

    @property
    def heard(self) -> bool:
        """Whether the engine was ever heard."""
        return self._status_s is not None

    def silent_s(self) -> float:
        """Seconds since the last status, or since the start where none ever came."""
        return time.monotonic() - (self._started_s if self._status_s is None else self._status_s)

    def _receive(self) -> None:
        with LineSubscriber(self._host, self._port, self._keys) as subscriber:
            while not self._stop.is_set():
                messages = subscriber.receive(_POLL_MS)
                if messages:
                    self._post(messages)

    def _post(self, messages: list[VerdictMessage | StatusMessage | Preview]) -> None:
        previews = [message for message in messages if isinstance(message, Preview)]
        # Decoding takes milliseconds and needs no lock. CONFLATE leaves one preview in a batch, rarely two.
        pictures = [from_preview(preview, self._box_px) for preview in previews]
        with self._lock:
            mail = self._mail
            for message in messages:
                match message:
                    case StatusMessage():
                        mail.status = message
                        self._status_s = time.monotonic()
                    case VerdictMessage():
                        mail.verdict = message
                        if message.verdict is not Verdict.PASS:
                            mail.not_passed.append(message)
            for picture in pictures:
                mail.picture = picture
                if picture.verdict is not Verdict.PASS:
                    mail.not_passed_pictures.append(picture)
            announce, self._announced = not self._announced, True
        if announce:
            self.arrived.emit()
