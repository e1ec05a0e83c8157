"""What every painted part of the screen is: an opaque widget that knows its scale and says what it shows."""

from PySide6.QtCore import QRectF, Qt
from PySide6.QtGui import QPaintEvent
from PySide6.QtWidgets import QWidget

from ui.canvas import Canvas


class Panel(QWidget):
    """A widget painted by hand; plain QWidget painting is the fastest Qt has in software.

    Attributes:
        k: layout scale, see `ui.theme`.
    """

    def __init__(self, parent: QWidget | None, name: str, description: str) -> None:
        super().__init__(parent)
        self.k = 1.0
        self.setAccessibleName(name)
        self.setAccessibleDescription(description)
        self.setAttribute(Qt.WidgetAttribute.WA_OpaquePaintEvent)

    def rescale(self, k: float) -> None:
        """Take a new scale; panels with children hand it on and lay them out."""
        self.k = k
        self.update()

    def say(self, description: str) -> None:
        """What the panel shows now, for a screen reader and for tests; repaints."""
        if description != self.accessibleDescription():
            self.setAccessibleDescription(description)
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        """Paint the whole panel."""
        with Canvas(self) as canvas:
            self.paint(canvas, QRectF(self.rect()))

    def paint(self, canvas: Canvas, area: QRectF) -> None:
        """Fill every pixel of `area`, the panel's rectangle."""
        raise NotImplementedError
