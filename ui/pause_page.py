"""Why the line is to stand still: the reason goes into the record and the shift report."""

from PySide6.QtCore import QRect, Signal
from PySide6.QtWidgets import QWidget

from ui import theme
from ui.button import TouchButton
from ui.page import Page

REASONS = ("Changeover", "Jam", "Maintenance", "Quality stop", "Break", "Material missing")


class PausePage(Page):
    """A large list to touch; nothing happens before a reason is chosen.

    Signals:
        chosen: (reason)
    """

    chosen = Signal(str)

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent, "Why pause the line?", "Choose why the line is to be paused")
        self.note("Parts that still arrive are rejected.")
        self.buttons = [
            TouchButton(reason, f"Pause the line: {reason.lower()}", self, str(index + 1), 34)
            for index, reason in enumerate(REASONS)
        ]
        for button in self.buttons:
            button.clicked.connect(lambda _checked, button=button: self.chosen.emit(button.text().lower()))

    def lay_out(self, content: QRect) -> None:
        """Two columns of three."""
        gap_px = round(theme.GAP_PX * self.k)
        width_px, height_px = (content.width() - gap_px) // 2, (content.height() - 2 * gap_px) // 3
        height_px = min(height_px, round(190 * self.k))
        for index, button in enumerate(self.buttons):
            row, column = divmod(index, 2)
            x, y = content.x() + column * (width_px + gap_px), content.y() + row * (height_px + gap_px)
            button.setGeometry(x, y, width_px, height_px)
            button.rescale(self.k)
