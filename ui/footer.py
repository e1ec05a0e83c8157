"""Six large buttons. Every label is what happens when it is pressed."""

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QWidget

from station.types import EngineState
from ui import theme
from ui.button import TouchButton

_STARTABLE = (EngineState.PAUSED, EngineState.READY, EngineState.STOPPED)


class Footer(QWidget):
    """The operator's actions.

    Signals:
        start_wanted, pause_wanted: the line.
        heatmap_wanted: (shown)
        page_wanted: (name) review, alarms, report, engineer.
    """

    start_wanted = Signal()
    pause_wanted = Signal()
    heatmap_wanted = Signal(bool)
    page_wanted = Signal(str)

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.setAccessibleName("Actions")
        self._running = False
        self._heatmap = True
        self.line = TouchButton("Start line", "Let the line run", self, "Space")
        self.heatmap = TouchButton("Hide heatmap", "Show the picture without its heatmap", self, "H")
        self.review = TouchButton("NG review", "Look at this shift's rejects", self, "N")
        self.alarms = TouchButton("Alarms (0)", "List the alarms", self, "L")
        self.report = TouchButton("Shift report", "Write the report of this shift so far", self, "R")
        self.engineer = TouchButton("Engineer", "Show model, limits, timing and devices", self, "E")
        self.buttons = (self.line, self.heatmap, self.review, self.alarms, self.report, self.engineer)
        self.line.clicked.connect(self._line_pressed)
        self.heatmap.clicked.connect(self._heatmap_pressed)
        for name in ("review", "alarms", "report", "engineer"):
            button: TouchButton = getattr(self, name)
            button.setCheckable(True)
            button.clicked.connect(lambda _checked, name=name: self.page_wanted.emit(name))

    def show_state(self, state: EngineState | None) -> None:
        """The line's state; in doubt (fault, unknown) the safe action is offered."""
        self._running = state not in _STARTABLE
        if self._running:
            self.line.relabel("Pause line", "Stop triggering, with a reason")
        else:
            self.line.relabel("Start line", "Let the line run")

    def show_alarm_count(self, count: int) -> None:
        """How many alarms want attention."""
        self.alarms.relabel(f"Alarms ({count})", "List the alarms")

    def show_page(self, name: str) -> None:
        """Mark the button whose page is open."""
        for page in ("review", "alarms", "report", "engineer"):
            getattr(self, page).setChecked(page == name)

    def rescale(self, k: float) -> None:
        """Six equal buttons."""
        gap_px = theme.GAP_PX * k
        width_px = (self.width() - 5 * gap_px) / 6
        for index, button in enumerate(self.buttons):
            left, right = round(index * (width_px + gap_px)), round(index * (width_px + gap_px) + width_px)
            button.setGeometry(left, 0, right - left, self.height())
            button.rescale(k)

    def _line_pressed(self) -> None:
        (self.pause_wanted if self._running else self.start_wanted).emit()

    def _heatmap_pressed(self) -> None:
        self._heatmap = not self._heatmap
        if self._heatmap:
            self.heatmap.relabel("Hide heatmap", "Show the picture without its heatmap")
        else:
            self.heatmap.relabel("Show heatmap", "Lay the heatmap over the picture")
        self.heatmap_wanted.emit(self._heatmap)
