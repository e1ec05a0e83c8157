"""The stack light stage: sole owner of the lamps. No lamp may delay the gate: a thread of its own."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping

from drivers.errors import OutputError
from drivers.outputs import DigitalOutput
from station.stage import Stage
from station.types import Alarm, EngineState

log = logging.getLogger(__name__)

_LOOK_S = 0.1
_RETRY_S = 2.0


def lamps_lit(state: EngineState, alarms: Iterable[Alarm]) -> frozenset[str]:
    """Which of green, amber, red, buzzer are on (IEC 60073: red = act now, amber = look, green = well)."""
    waiting = [alarm for alarm in alarms if alarm.active and not alarm.acknowledged]
    buzzer = {"buzzer"} if any(alarm.priority == "high" for alarm in waiting) else set()
    match state:
        case EngineState.FAULT:
            return frozenset({"red"} | buzzer)
        case EngineState.RUNNING:
            return frozenset(({"green", "amber"} if waiting else {"green"}) | buzzer)
        case EngineState.STOPPED:
            return frozenset()
        case _:
            return frozenset({"amber"} | buzzer)


class StackLightStage(Stage):
    """Shows the line's state, as far as lamps are wired."""

    patience_s = 120.0  # four lamps that do not answer, one after the other

    def __init__(
        self,
        lamps: Mapping[str, DigitalOutput],
        lit: Callable[[], frozenset[str]],
        on_lamps: Callable[[str, str], None],
        on_failure: Callable[[Stage], None],
    ) -> None:
        """Set up; the lamps are opened in this stage's own thread, and again after a failure.

        Args:
            lamps: name -> output; only this thread touches them.
            lit: says which are to be on.
            on_lamps: told the state of the stack light (ok or warn: the line runs on) and a text on changes.
            on_failure: told when this stage dies.
        """
        super().__init__("stack_light", on_failure)
        self._lamps = lamps
        self._lit = lit
        self._on_lamps = on_lamps
        self._stopping = threading.Event()
        self._levels: dict[str, bool] = {}  # as last written
        self._retry_s = 0.0
        self._said = ""

    @property
    def wired(self) -> bool:
        """Whether there is any lamp."""
        return bool(self._lamps)

    def stop(self) -> None:
        """Show the last state, then switch all lamps off and end."""
        self._stopping.set()

    def work(self) -> None:
        """Until stopped: look, and switch what has changed."""
        try:
            while not self._stopping.wait(_LOOK_S):
                self.beat()
                if time.monotonic() >= self._retry_s:
                    self._show(self._lit())
        finally:
            for lamp in self._lamps.values():
                lamp.close()

    def _show(self, lit: frozenset[str]) -> None:
        said = "ready"
        for name, lamp in self._lamps.items():
            level = name in lit
            if self._levels.get(name) is level:
                continue
            try:
                if name not in self._levels:
                    lamp.open()
                lamp.write(level)
                self._levels[name] = level
            except OutputError as error:
                self._levels.pop(name, None)
                self._retry_s = time.monotonic() + _RETRY_S
                said = f"{name} lamp: {error}"
        if said != self._said:
            self._said = said
            self._on_lamps("ok" if said == "ready" else "warn", said)
