"""The shift in numbers, and the run's ledger: every part that was ever triggered, accounted for, live."""

from PySide6.QtCore import QRectF
from PySide6.QtGui import QColor
from PySide6.QtWidgets import QWidget

from station.types import StatusMessage, Verdict
from ui import theme, words
from ui.canvas import LEFT, RIGHT, Canvas, number
from ui.panel import Panel

MANY_ROWS = 64  # decided and not recorded: more than one commit's


class Counters(Panel):
    """Yield and counts of the shift. Yield is passed parts of all parts, as in the shift report."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent, "Counters of the shift", "unknown")
        self._status: StatusMessage | None = None

    def show_status(self, status: StatusMessage | None) -> None:
        """None = unknown."""
        self._status = status
        self.say(", ".join(f"{label} {value}" for label, value in self._values().items()))

    def _values(self) -> dict[str, str]:
        status = self._status
        labels = (
            "Yield this shift",
            "Rejected",
            "Inspected",
            "Passed",
            "NG in a row",
            "Rechecks",
            "Not inspected",
        )
        if status is None:
            return dict.fromkeys(labels, words.UNKNOWN)
        passed, recheck, reject, missed = (
            status.shift_counts.get(verdict, 0)
            for verdict in (Verdict.PASS, Verdict.RECHECK, Verdict.REJECT, Verdict.NOT_INSPECTED)
        )
        percent = shift_yield_percent(status)
        counts = (reject, passed + recheck + reject, passed, status.reject_streak, recheck, missed)
        shown = words.UNKNOWN if percent is None else f"{percent:.1f}\u202f%"
        return dict(zip(labels, (shown, *map(number, counts)), strict=True))

    def paint(self, canvas: Canvas, area: QRectF) -> None:
        """Two rows of large numbers, one of small."""
        k = self.k
        canvas.fillRect(area, theme.BACKGROUND)
        gap = theme.GAP_PX * k
        small_px = 60 * k
        row_px = (area.height() - small_px - 2 * gap) / 2
        unit = (area.width() - 2 * gap) / 3
        values = list(self._values().items())
        wide = QRectF(area.left(), area.top(), 2 * unit + gap, row_px)
        self._tile(canvas, wide, *values[0], 72 * k, caption=self._target())
        self._tile(canvas, QRectF(wide.right() + gap, area.top(), unit, row_px), *values[1], 56 * k)
        for column in range(3):
            box = QRectF(area.left() + column * (unit + gap), area.top() + row_px + gap, unit, row_px)
            self._tile(canvas, box, *values[2 + column], 56 * k)
        half = (area.width() - gap) / 2
        for column in range(2):
            label, value = values[5 + column]
            box = QRectF(area.left() + column * (half + gap), area.bottom() - small_px, half, small_px)
            canvas.panel(box, theme.PANEL, theme.RADIUS_PX * k)
            inside = box.adjusted(16 * k, 0, -16 * k, 0)
            used = canvas.text(inside, label, 22 * k, theme.DIM)
            canvas.text(
                inside.adjusted(used + 12 * k, 0, 0, 0),
                value,
                38 * k,
                align=RIGHT,
                bold=True,
                shrink_to_px=20 * k,
            )

    def _target(self) -> tuple[str, QColor]:
        """How the yield stands to its target. Grey: whether it is out of order is the alarm's to say."""
        status = self._status
        percent = shift_yield_percent(status) if status else None
        if status is None or percent is None:
            return "", theme.DIM
        target = status.yield_target_percent
        if percent < target:
            return f"▼ {target - percent:.1f} under target {target:g}\u202f%", theme.TEXT
        return f"target {target:g}\u202f%", theme.DIM

    def _tile(
        self,
        canvas: Canvas,
        box: QRectF,
        label: str,
        value: str,
        size_px: float,
        caption: tuple[str, QColor] = ("", theme.DIM),
    ) -> None:
        k = self.k
        canvas.panel(box, theme.PANEL, theme.RADIUS_PX * k)
        inside = box.adjusted(16 * k, 8 * k, -16 * k, -6 * k)
        top = QRectF(inside.left(), inside.top(), inside.width(), 28 * k)
        used = canvas.text(top, label, 22 * k, theme.DIM, LEFT)
        canvas.text(top.adjusted(used + 16 * k, 0, 0, 0), caption[0], 20 * k, caption[1], RIGHT)
        below = QRectF(
            inside.left(), top.bottom() - 2 * k, inside.width(), inside.bottom() - top.bottom() + 2 * k
        )
        canvas.text(
            below, value, min(size_px, below.height() * 0.98), align=RIGHT, bold=True, shrink_to_px=22 * k
        )


def shift_yield_percent(status: StatusMessage) -> float | None:
    """Passed parts of all parts of the shift; None before the first."""
    total = sum(status.shift_counts.values())
    return 100 * status.shift_counts.get(Verdict.PASS, 0) / total if total else None


class LedgerLine(Panel):
    """The run's equation on one line; it turns into a warning should it ever not hold."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent, "Ledger of this run", "unknown")
        self._text = ""
        self._word = ""
        self._amiss = False

    def show_status(self, status: StatusMessage | None) -> None:
        """None = unknown."""
        if status is None:
            self._text, self._word, self._amiss = "Ledger unknown: no signal", "", False
        else:
            self._text, (self._word, self._amiss) = equation(status), holds(status)
        self.say(f"{self._text} {self._word}".strip())

    def paint(self, canvas: Canvas, area: QRectF) -> None:
        """Dim while it holds."""
        k = self.k
        canvas.fillRect(area, theme.BACKGROUND)
        ground, ink = (theme.WARN, theme.INK) if self._amiss else (theme.PANEL, theme.DIM)
        canvas.panel(area, ground, theme.RADIUS_PX * k)
        inside = area.adjusted(14 * k, 0, -14 * k, 0)
        used = canvas.text(inside, self._word, 18 * k, ink, RIGHT, bold=self._amiss)
        canvas.text(inside.adjusted(0, 0, -used - 12 * k, 0), self._text, 18 * k, ink, shrink_to_px=14 * k)


def holds(status: StatusMessage) -> tuple[str, bool]:
    """Whether the ledger's equation holds and its rows are on the disk, in a word; and whether not."""
    ledger = status.ledger
    waiting = ledger.triggered - ledger.in_flight - ledger.rows
    if not ledger.balanced():
        return "≠  NOT BALANCED", True
    if waiting >= MANY_ROWS:
        return f"{number(waiting)} ROWS NOT ON THE DISK YET", True
    return "=  balanced", False


def equation(status: StatusMessage) -> str:
    """The ledger in words."""
    ledger = status.ledger
    return (
        f"This run: triggered {number(ledger.triggered)} = {number(ledger.passed)} pass"
        f" + {number(ledger.recheck)} recheck"
        f" + {number(ledger.reject)} reject + {number(ledger.not_inspected)} not inspected"
        f" + {number(ledger.in_flight)} in flight; rows {number(ledger.rows)}"
    )
