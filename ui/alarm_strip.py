"""The alarm strip: always reserved, so that an alarm never moves the picture."""

from collections.abc import Sequence

from PySide6.QtCore import QRectF, Qt, Signal
from PySide6.QtGui import QMouseEvent
from PySide6.QtWidgets import QWidget

from station.types import Alarm
from ui import theme, words
from ui.alarms import colours, condition, in_order, needs_attention, paint_priority
from ui.button import TouchButton
from ui.canvas import RIGHT, Canvas
from ui.panel import Panel

_BUTTON_PX = 240


class AlarmStrip(Panel):
    """The foremost alarm with its cause, its action and its acknowledgement.

    Signals:
        acknowledged: (key) the operator has seen it.
        opened: the strip was touched.
    """

    acknowledged = Signal(str)
    opened = Signal()

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent, "Alarm", "no active alarms")
        self._shown: tuple[Alarm, ...] = ()
        self._last: Alarm | None = None
        self._known = True
        self._button = TouchButton("Acknowledge", "Acknowledge the alarm shown", self, "A")
        self._button.clicked.connect(self._acknowledge)
        self._button.hide()

    def show_alarms(self, alarms: Sequence[Alarm], known: bool = True) -> None:
        """All alarms there are; `known` is False while nothing is heard from the engine."""
        self._shown = tuple(alarm for alarm in in_order(alarms) if needs_attention(alarm))
        self._last = max(alarms, key=lambda alarm: alarm.raised_unix_ns, default=self._last)
        self._known = known
        self._button.setVisible(bool(self._shown) and not self._shown[0].acknowledged)
        first = self._shown[0] if self._shown else None
        said = (
            f"{first.priority}: {first.title}; {first.action}; {condition(first)}"
            if first
            else "no active alarms"
        )
        self.say(said if known or first else "alarms unknown")

    def rescale(self, k: float) -> None:
        """Lay out the button."""
        self._button.rescale(k)
        width_px, margin_px = round(_BUTTON_PX * k), round(8 * k)
        self._button.setGeometry(
            self.width() - width_px - margin_px, margin_px, width_px, self.height() - 2 * margin_px
        )
        super().rescale(k)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        """Touching the strip opens the list."""
        if event.button() == Qt.MouseButton.LeftButton and self._shown:
            self.opened.emit()

    def _acknowledge(self) -> None:
        if self._shown:
            self.acknowledged.emit(self._shown[0].key)

    def paint(self, canvas: Canvas, area: QRectF) -> None:
        """Grey while there is nothing; filled until acknowledged; outlined after."""
        k = self.k
        canvas.fillRect(area, theme.BACKGROUND)
        inside = area.adjusted(20 * k, 0, -20 * k, 0)
        if not self._shown:
            canvas.panel(area, theme.PANEL, theme.RADIUS_PX * k)
            text = "No active alarms" if self._known else "Alarms unknown: no signal from the station"
            used = canvas.text(inside, text, 26 * k, theme.DIM)
            if self._last is not None and self._known:
                last = f"last {words.clock(self._last.raised_unix_ns, seconds=False)}  {self._last.title}"
                canvas.text(inside.adjusted(used + 40 * k, 0, 0, 0), last, 20 * k, theme.DIM, RIGHT)
            return
        alarm = self._shown[0]
        ground, ink = colours(alarm)
        if alarm.acknowledged:
            canvas.panel(area, theme.PANEL, theme.RADIUS_PX * k, ground, max(2.0, 4 * k))
            ink = theme.TEXT
        else:
            canvas.panel(area, ground, theme.RADIUS_PX * k)
        icon_px = 56 * k
        icon = QRectF(inside.left(), area.center().y() - icon_px / 2, icon_px, icon_px)
        paint_priority(canvas, alarm, icon, ink)
        right_px = (self._button.x() if self._button.isVisibleTo(self) else inside.right()) - 20 * k
        about_px = 250 * k
        about = QRectF(right_px - about_px, area.top() + 12 * k, about_px, area.height() - 24 * k)
        upper, lower = _halves(about)
        canvas.text(upper, f"{1} of {len(self._shown)}", 22 * k, ink, RIGHT)
        state = "Acknowledged" if alarm.acknowledged else "" if alarm.active else "Cleared"
        canvas.text(
            lower,
            "  ".join(filter(None, (state, words.clock(alarm.raised_unix_ns, False)))),
            20 * k,
            ink,
            RIGHT,
        )
        main = QRectF(
            icon.right() + 20 * k,
            area.top() + 4 * k,
            about.left() - icon.right() - 40 * k,
            area.height() - 8 * k,
        )
        title = QRectF(main.left(), main.top(), main.width(), main.height() * 0.62)
        what, _, cause = alarm.title.partition(": ")
        canvas.text(title, what.upper(), 44 * k, ink, bold=True, shrink_to_px=30 * k)
        action = QRectF(main.left(), title.bottom() - 2 * k, main.width(), main.height() * 0.36)
        advice = "  —  ".join(filter(None, (cause, alarm.action)))
        canvas.text(action, f"{alarm.priority.upper()}   {advice}", 23 * k, ink, shrink_to_px=18 * k)


def _halves(box: QRectF) -> tuple[QRectF, QRectF]:
    half = box.height() / 2
    return QRectF(box.x(), box.y(), box.width(), half), QRectF(box.x(), box.y() + half, box.width(), half)
