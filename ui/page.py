"""What takes the picture's place when asked for: a title, a way back, room. The verdict stays in sight."""

from PySide6.QtCore import QRect, QRectF, Signal
from PySide6.QtWidgets import QWidget

from ui import theme
from ui.button import TouchButton
from ui.canvas import Canvas
from ui.panel import Panel

_TITLE_PX = 76


class Page(Panel):
    """A page.

    Signals:
        closed: back to the line.
    """

    closed = Signal()

    def __init__(self, parent: QWidget, title: str, description: str) -> None:
        super().__init__(parent, title, description)
        self._title = title
        self._note = ""
        self._back = TouchButton("Back to live", "Show the line again", self, "Escape")
        self._back.clicked.connect(self.closed)

    def note(self, text: str) -> None:
        """One line beside the title."""
        self._note = text
        self.update()

    def rescale(self, k: float) -> None:
        """Title above, content below."""
        super().rescale(k)
        width_px = round(230 * k)
        self._back.setGeometry(
            self.width() - width_px - round(10 * k), round(10 * k), width_px, round((_TITLE_PX - 8) * k)
        )
        self._back.rescale(k)
        margin_px, top_px = round(20 * k), round((_TITLE_PX + 14) * k)
        self.lay_out(
            QRect(margin_px, top_px, self.width() - 2 * margin_px, self.height() - top_px - margin_px)
        )

    def lay_out(self, content: QRect) -> None:
        """Place the page's own widgets in `content`."""

    def paint(self, canvas: Canvas, area: QRectF) -> None:
        """Title and ground; then the page's own painting."""
        k = self.k
        canvas.fillRect(area, theme.BACKGROUND)
        canvas.panel(area, theme.PANEL, theme.RADIUS_PX * k)
        room = self._back.x() - 40 * k
        title = QRectF(20 * k, 8 * k, room, _TITLE_PX * k)
        used = canvas.text(title, self._title, 38 * k, bold=True, shrink_to_px=24 * k)
        canvas.text(title.adjusted(used + 24 * k, 4 * k, 0, 0), self._note, 22 * k, theme.DIM)
