"""All alarms: priority, what and why, what to do, since when, and acknowledging each."""

from collections.abc import Sequence

from PySide6.QtCore import QRect, QRectF, Signal
from PySide6.QtWidgets import QWidget

from station.types import Alarm
from ui import theme, words
from ui.alarms import colours, condition, in_order, needs_attention, paint_priority
from ui.button import TouchButton
from ui.canvas import CENTRE, Canvas
from ui.page import Page

_ROWS = 6


class AlarmsPage(Page):
    """A list in pages of six.

    Signals:
        acknowledged: (key)
    """

    acknowledged = Signal(str)

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent, "Alarms", "no alarms")
        self._alarms: tuple[Alarm, ...] = ()
        self._first = 0
        self._content = QRect()
        self._buttons = [
            TouchButton("Acknowledge", "Acknowledge this alarm", self, text_px=22) for _ in range(_ROWS)
        ]
        for row, button in enumerate(self._buttons):
            button.clicked.connect(
                lambda _checked, row=row: self.acknowledged.emit(self._alarms[self._first + row].key)
            )
        self._newer = TouchButton("Previous", "Show the alarms before these", self, "PgUp", 22)
        self._older = TouchButton("Next", "Show the alarms after these", self, "PgDown", 22)
        self._newer.clicked.connect(lambda: self._turn(-_ROWS))
        self._older.clicked.connect(lambda: self._turn(_ROWS))
        self._fill()

    def show_alarms(self, alarms: Sequence[Alarm]) -> None:
        """All there are."""
        if in_order(alarms) != self._alarms:
            self._alarms = in_order(alarms)
            self._fill()

    def lay_out(self, content: QRect) -> None:
        """A button to each row, paging below."""
        k = self.k
        self._content = content
        for row, button in enumerate(self._buttons):
            box = self._row(row).toRect()
            width_px, margin_px = round(190 * k), round(10 * k)
            button.setGeometry(
                box.right() - width_px - margin_px,
                box.y() + margin_px,
                width_px,
                box.height() - 2 * margin_px,
            )
            button.rescale(k)
        width_px, height_px = round(200 * k), round(56 * k)
        for column, button in enumerate((self._newer, self._older)):
            x = content.right() - (2 - column) * width_px - (1 - column) * round(theme.GAP_PX * k) + 1
            button.setGeometry(x, content.bottom() - height_px, width_px, height_px)
            button.rescale(k)

    def _turn(self, rows: int) -> None:
        self._first += rows
        self._fill()

    def _fill(self) -> None:
        self._first = min(max(self._first, 0), max(0, (len(self._alarms) - 1) // _ROWS * _ROWS))
        shown = self._alarms[self._first : self._first + _ROWS]
        for row, button in enumerate(self._buttons):
            button.setVisible(row < len(shown) and not shown[row].acknowledged)
        self._newer.setVisible(self._first > 0)
        self._older.setVisible(self._first + _ROWS < len(self._alarms))
        waiting = sum(map(needs_attention, self._alarms))
        self.note(f"{waiting} want attention" if waiting else "")
        self.say(
            "; ".join(f"{alarm.priority}: {alarm.title}, {condition(alarm)}" for alarm in shown)
            or "no alarms"
        )

    def _row(self, row: int) -> QRectF:
        gap_px = 10 * self.k
        height_px = min((self._content.height() - 66 * self.k) / _ROWS - gap_px, 118 * self.k)
        top = self._content.y() + row * (height_px + gap_px)
        return QRectF(self._content.x(), top, self._content.width(), height_px)

    def paint(self, canvas: Canvas, area: QRectF) -> None:
        """One plate a row; a filled icon only where something wants attention."""
        super().paint(canvas, area)
        k = self.k
        if not self._alarms:
            canvas.text(QRectF(self._content), "No alarms", 32 * k, theme.DIM, CENTRE)
        for row, alarm in enumerate(self._alarms[self._first : self._first + _ROWS]):
            box = self._row(row)
            canvas.panel(box, theme.BACKGROUND, theme.RADIUS_PX * k)
            ground, ink = colours(alarm) if needs_attention(alarm) else (theme.BACKGROUND, theme.DIM)
            plate = QRectF(box.left(), box.top(), 150 * k, box.height())
            canvas.panel(plate, ground, theme.RADIUS_PX * k)
            icon_px = min(44 * k, plate.height() * 0.5)
            icon = QRectF(
                plate.center().x() - icon_px / 2, plate.top() + plate.height() * 0.12, icon_px, icon_px
            )
            paint_priority(canvas, alarm, icon, ink)
            word = QRectF(plate.left(), icon.bottom(), plate.width(), plate.bottom() - icon.bottom())
            canvas.text(word, alarm.priority.upper(), 20 * k, ink, CENTRE, bold=True)
            right_px = self._buttons[row].x() - 16 * k
            text = QRectF(
                plate.right() + 18 * k,
                box.top() + 6 * k,
                right_px - plate.right() - 18 * k,
                (box.height() - 12 * k) / 3,
            )
            strong = theme.TEXT if needs_attention(alarm) else theme.DIM
            canvas.text(text, alarm.title, 26 * k, strong, bold=True, shrink_to_px=19 * k)
            canvas.text(text.translated(0, text.height()), alarm.action, 22 * k, strong, shrink_to_px=18 * k)
            since = f"{words.clock(alarm.raised_unix_ns)}   {condition(alarm)}"
            canvas.text(text.translated(0, 2 * text.height()), since, 19 * k, theme.DIM)
