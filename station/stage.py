"""A stage of the line: one thread, named like its file, that keeps the exception it died of."""

import logging
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)


class Stage(threading.Thread):
    """Subclasses implement `work`. An exception in it is kept in `error` and told to `on_failure` once."""

    def __init__(self, name: str, on_failure: Callable[["Stage"], None]) -> None:
        super().__init__(
            name=name, daemon=True
        )  # a stage that will not end must not keep a stopped process alive
        self.error: BaseException | None = None
        self._on_failure = on_failure

    def work(self) -> None:
        """The stage's whole life."""
        raise NotImplementedError  # each stage has its own

    def run(self) -> None:
        """Run `work` and keep what it died of."""
        try:
            self.work()
        except BaseException as error:
            self.error = error
            log.exception("stage %s failed", self.name)
            self._on_failure(self)
