"""A stage of the line: one thread, named like its file, that keeps the exception it died of."""

import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

LONGEST_WAIT_S = 1.0  # a stage with nothing to do still shows so often that it could


class Stage(threading.Thread):
    """Subclasses implement `work`. An exception in it is kept in `error` and told to `on_failure` once.

    Each turn of its loop calls `beat`; supervision takes a stage that has not for `patience_s` as hanging.
    """

    vital = True
    """Whether parts are inspected only while this stage gets somewhere."""
    patience_s = 30.0
    """Longest time between two beats of a stage that is well: a device that is opened, a worker that dies."""

    def __init__(self, name: str, on_failure: Callable[["Stage"], None]) -> None:
        super().__init__(
            name=name, daemon=True
        )  # a stage that will not end must not keep a stopped process alive
        self.error: BaseException | None = None
        self._on_failure = on_failure
        self._beat_s = time.monotonic()

    def beat(self) -> None:
        """This stage has got somewhere. Only for its own thread."""
        self._beat_s = time.monotonic()

    @property
    def silent_s(self) -> float:
        """Seconds since the last beat."""
        return time.monotonic() - self._beat_s

    @property
    def hangs(self) -> bool:
        """Whether this stage has been started and gets nowhere any more; dead ones get nowhere either."""
        return self.ident is not None and self.silent_s > self.patience_s

    def work(self) -> None:
        """The stage's whole life."""
        raise NotImplementedError  # each stage has its own

    def run(self) -> None:
        """Run `work` and keep what it died of."""
        self.beat()
        try:
            self.work()
        except BaseException as error:
            self.error = error
            log.exception("stage %s failed", self.name)
            self._on_failure(self)
