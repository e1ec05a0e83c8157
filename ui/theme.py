"""Tokens of the screen: colours, fonts, sizes at 1920x1080, and the palette Qt's Fusion style paints with.

A grey screen on which colour means abnormal (ISA-101). Sizes are in pixels at 1920x1080, multiplied by the
scale k = min(width / 1920, height / 1080), so that one layout serves every panel.
"""

from PySide6.QtGui import QColor, QFont, QPalette
from PySide6.QtWidgets import QApplication, QStyleFactory

from station.types import Verdict

BACKGROUND = QColor("#24282c")
PANEL = QColor("#2f3439")
WELL = QColor("#15181a")  # round the picture
BUTTON = QColor("#3d444b")
LINE = QColor("#565e66")
TEXT = QColor("#e8eaec")
DIM = QColor("#a9b0b7")
OK = QColor("#0f5c47")  # white on it 7.9:1
NG = QColor("#b83a00")  # white on it 5.8:1
NG_BRIGHT = QColor("#ff6a2b")  # NG as a line on dark grey
WARN = QColor("#f0c000")  # with INK on it
PALE = QColor("#d5d9dd")  # NOT INSPECTED: no judgement, so no hue; with INK on it
INK = QColor("#16181a")
WHITE = QColor("#ffffff")

VERDICT_COLOURS: dict[Verdict, tuple[QColor, QColor]] = {  # ground, text
    Verdict.PASS: (OK, WHITE),
    Verdict.RECHECK: (WARN, INK),
    Verdict.REJECT: (NG, WHITE),
    Verdict.NOT_INSPECTED: (PALE, INK),
}
PRIORITY_COLOURS: dict[str, tuple[QColor, QColor]] = {
    "high": (NG, WHITE),
    "medium": (WARN, INK),
    "low": (PALE, INK),
}

REFERENCE_PX = (1920, 1080)
GAP_PX = 12
HEADER_PX = 44
ALARM_PX = 88
RIGHT_PX = 700
FOOTER_PX = 88
LEDGER_PX = 34
RADIUS_PX = 6
FAMILIES = ["DejaVu Sans", "Noto Sans", "Liberation Sans"]


def scale(width_px: int, height_px: int) -> float:
    """The layout scale k of a window."""
    return min(width_px / REFERENCE_PX[0], height_px / REFERENCE_PX[1])


def font(size_px: float, bold: bool = False) -> QFont:
    """The screen's font at `size_px` device pixels, at least 9."""
    chosen = QFont(FAMILIES)
    chosen.setPixelSize(max(9, round(size_px)))
    chosen.setBold(bold)
    return chosen


def apply(app: QApplication) -> None:
    """Fusion style with the dark palette, whatever the desktop says."""
    app.setStyle(QStyleFactory.create("Fusion"))
    palette = QPalette()
    for role, colour in {
        QPalette.ColorRole.Window: BACKGROUND,
        QPalette.ColorRole.WindowText: TEXT,
        QPalette.ColorRole.Base: PANEL,
        QPalette.ColorRole.AlternateBase: BACKGROUND,
        QPalette.ColorRole.Text: TEXT,
        QPalette.ColorRole.Button: BUTTON,
        QPalette.ColorRole.ButtonText: TEXT,
        QPalette.ColorRole.Highlight: TEXT,
        QPalette.ColorRole.HighlightedText: INK,
        QPalette.ColorRole.ToolTipBase: PANEL,
        QPalette.ColorRole.ToolTipText: TEXT,
        QPalette.ColorRole.PlaceholderText: DIM,
    }.items():
        palette.setColor(role, colour)
    app.setPalette(palette)
    app.setFont(font(18))
