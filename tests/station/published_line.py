"""A publishing stage on real sockets that has one part to show at all times, and counts what it is told."""

import threading
import time
from types import TracebackType
from typing import Any, Self

import numpy as np

from drivers.types import Frame, Trigger
from station.publishing import PublishingStage
from station.sections import PublishingSection
from station.stage import Stage
from station.types import Inspection, Reason, Verdict
from tests.station.test_wire import STATUS, VERDICT


class PublishedLine:
    """The stage from `with` to its end; every 10 ms a part is decided."""

    def __init__(self, **config: Any) -> None:
        self.config = PublishingSection(**{"status_hz": 30.0, "preview_hz": 60.0, **config})
        self.commands: list[tuple[str, dict[str, Any]]] = []
        self.failures: list[Stage] = []
        self.stage = PublishingStage(
            config=self.config,
            verdict_message=lambda inspection: VERDICT,
            status_message=lambda: STATUS,
            on_command=self._command,
            on_failure=self.failures.append,
        )
        self._ended = threading.Event()
        self._parts = threading.Thread(target=self._decide, name="parts")

    def __enter__(self) -> Self:
        self.stage.start()
        assert self.stage.opened.wait(10)
        assert self.stage.open_error is None, self.stage.open_error
        self._parts.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._parts.join()
        self.stage.stop()
        self.stage.join(20)
        assert not self.stage.is_alive()
        self.stage.close()
        assert self.failures == []

    def _command(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        self.commands.append((name, arguments))
        return {"ok": True}

    def _decide(self) -> None:
        while not self._ended.wait(0.01):
            now_ns = time.perf_counter_ns()
            trigger = Trigger(1, "CAM 1", now_ns, time.time_ns())
            frame = Frame(trigger, 0, np.zeros((8, 16, 3), np.uint8), now_ns)
            self.stage.put(
                Inspection(
                    trigger, frame, None, Verdict.NOT_INSPECTED, Reason.WORKER_DOWN, "", None, "", now_ns
                )
            )
