"""The one kind of button: large enough for a gloved finger, with a label that is an action."""

from PySide6.QtCore import QRectF, Qt
from PySide6.QtGui import QKeySequence, QPaintEvent
from PySide6.QtWidgets import QPushButton, QWidget

from ui import theme
from ui.canvas import CENTRE, Canvas


class TouchButton(QPushButton):
    """A painted push button.

    Attributes:
        k: layout scale.
    """

    def __init__(
        self, label: str, description: str, parent: QWidget | None = None, key: str = "", text_px: float = 26
    ) -> None:
        super().__init__(label, parent)
        self.k = 1.0
        self._text_px = text_px
        self.relabel(label, description, key)
        if key:
            self.setShortcut(QKeySequence(key))
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setAutoDefault(False)
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)  # a touch leaves no ring behind

    def relabel(self, label: str, description: str, key: str = "") -> None:
        """Give the button another action; the shortcut survives."""
        if label == self.text() and self.toolTip():
            return
        shortcut = self.shortcut()
        self.setText(label)
        self.setShortcut(shortcut)  # QAbstractButton takes its shortcut from every new text
        self.setAccessibleName(label)
        self.setAccessibleDescription(description)
        shown = key or shortcut.toString(QKeySequence.SequenceFormat.NativeText)
        self.setToolTip(f"{description} [{shown}]" if shown else description)

    def rescale(self, k: float) -> None:
        """Take a new scale."""
        self.k = k
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        """Rounded ground, ring when focused, label that shrinks before it elides."""
        with Canvas(self) as canvas:
            area = QRectF(self.rect())
            ground = theme.BUTTON
            if self.isDown() or self.isChecked():
                ground = theme.LINE
            elif self.underMouse() and self.isEnabled():
                ground = theme.BUTTON.lighter(115)
            border = theme.TEXT if self.hasFocus() or self.isChecked() else theme.LINE
            canvas.panel(area, ground, theme.RADIUS_PX * self.k, border, max(1.0, 2 * self.k))
            inside = area.adjusted(10 * self.k, 0, -10 * self.k, 0)
            colour = theme.TEXT if self.isEnabled() else theme.DIM
            size_px = self._text_px * self.k
            canvas.text(inside, self.text(), size_px, colour, CENTRE, shrink_to_px=size_px * 0.7)
