"""The verdict: read at two metres, by shape and word before colour. Where the line stands, its state."""

from PySide6.QtCore import QRectF
from PySide6.QtGui import QColor
from PySide6.QtWidgets import QWidget

from station.types import EngineState, StatusMessage, Verdict, VerdictMessage
from ui import theme, words
from ui.canvas import RIGHT, Canvas, number
from ui.panel import Panel

_JUDGING = (EngineState.READY, EngineState.RUNNING)


class VerdictPanel(Panel):
    """Verdict, reason, and the score against its limits."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent, "Verdict", "no verdict yet")
        self._status: StatusMessage | None = None
        self._verdict: VerdictMessage | None = None

    def show_status(self, status: StatusMessage | None) -> None:
        """None = no signal: the verdict is cleared, since nobody knows what became of later parts."""
        self._status = status
        if status is None:
            self._verdict = None
        self._describe()

    def show_verdict(self, verdict: VerdictMessage) -> None:
        """The latest part's verdict."""
        self._verdict = verdict
        self._describe()

    def _describe(self) -> None:
        status, verdict = self._status, self._verdict
        if status is None:
            self.say("no signal")
        elif status.state not in _JUDGING:
            self.say(f"{status.state}: {status.state_reason}")
        elif verdict is None:
            self.say(f"{status.state}, no verdict yet")
        else:
            limit = words.score(verdict.limit_reject)
            judgement = f"{words.WORDS[verdict.verdict]}: {words.why(verdict)}"
            self.say(f"{judgement}; score {words.score(verdict.score)}, limit {limit}")

    def paint(self, canvas: Canvas, area: QRectF) -> None:
        """A verdict, a state, or that nothing is known."""
        canvas.fillRect(area, theme.BACKGROUND)
        status, verdict = self._status, self._verdict
        if status is None:
            self._state(canvas, area, "NO SIGNAL", "the line is not heard", theme.PANEL, theme.TEXT)
        elif status.state is EngineState.FAULT:
            self._state(canvas, area, "FAULT", status.state_reason or "see the alarms", theme.WARN, theme.INK)
        elif status.state not in _JUDGING:
            self._state(canvas, area, status.state, status.state_reason, theme.PANEL, theme.TEXT)
        elif verdict is None:
            self._state(canvas, area, status.state, "waiting for the first part", theme.PANEL, theme.TEXT)
        else:
            self._judgement(canvas, area, verdict)

    def _state(
        self, canvas: Canvas, area: QRectF, word: str, reason: str, ground: QColor, ink: QColor
    ) -> None:
        k = self.k
        canvas.panel(area, ground, theme.RADIUS_PX * k)
        icon, title, line, last = self._boxes(area)
        if word == EngineState.PAUSED:
            canvas.pause_shape(icon, ink)
        elif word in (EngineState.FAULT, "NO SIGNAL"):
            canvas.warning_shape(icon, ink)
        else:
            canvas.ring_shape(icon, ink)
        canvas.text(title, word, 132 * k, ink, bold=True, shrink_to_px=56 * k)
        below = QRectF(line.left(), line.top(), line.width(), last.bottom() - 34 * k - line.top())
        canvas.paragraph(below, reason[:1].upper() + reason[1:], 38 * k, ink, 20 * k)
        if self._verdict is not None:
            text = f"Last part {number(self._verdict.part_seq)}: {words.WORDS[self._verdict.verdict]}"
            canvas.text(QRectF(last.left(), last.bottom() - 30 * k, last.width(), 30 * k), text, 22 * k, ink)

    def _judgement(self, canvas: Canvas, area: QRectF, verdict: VerdictMessage) -> None:
        k = self.k
        ground, ink = theme.VERDICT_COLOURS[verdict.verdict]
        canvas.panel(area, ground, theme.RADIUS_PX * k)
        icon, title, line, bar = self._boxes(area)
        mark = theme.NG if verdict.verdict is Verdict.NOT_INSPECTED else ink
        canvas.verdict_shape(verdict.verdict, icon, mark)
        first, _, second = words.WORDS[verdict.verdict].partition(" ")
        if second:  # NOT INSPECTED: two lines
            half = title.height() / 2
            for row, text in enumerate((first, second)):
                box = QRectF(title.left(), title.top() + row * half, title.width(), half)
                canvas.text(box, text, 78 * k, ink, bold=True, shrink_to_px=40 * k)
        else:
            canvas.text(title, first, 140 * k, ink, bold=True, shrink_to_px=60 * k)
        why = words.why(verdict)
        canvas.text(line, why[:1].upper() + why[1:], 40 * k, ink, bold=True, shrink_to_px=26 * k)
        caption = QRectF(bar.left(), bar.top(), bar.width(), 30 * k)
        used = canvas.text(
            caption, f"Part {number(verdict.part_seq)}   {verdict.latency_ms:.0f} ms", 22 * k, ink
        )
        if verdict.score is None:
            canvas.text(caption.adjusted(used + 20 * k, 0, 0, 0), "no score", 22 * k, ink, RIGHT)
            return
        scores = f"score {words.score(verdict.score)}  /  limit {words.score(verdict.limit_reject)}"
        canvas.text(caption.adjusted(used + 20 * k, 0, 0, 0), scores, 22 * k, ink, RIGHT)
        self._bar(
            canvas,
            QRectF(bar.left(), bar.bottom() - 24 * k, bar.width(), 16 * k),
            verdict,
            verdict.score,
            ground,
            ink,
        )

    def _bar(
        self, canvas: Canvas, box: QRectF, verdict: VerdictMessage, score: float, ground: QColor, ink: QColor
    ) -> None:
        """From 0 to twice the reject limit, so the limit is always in the middle."""
        k = self.k
        if verdict.limit_reject <= 0:
            return
        canvas.fillRect(box, ground.darker(175) if ink is theme.WHITE else ground.darker(135))
        share = min(max(score / (2 * verdict.limit_reject), 0.0), 1.0)
        canvas.fillRect(QRectF(box.left(), box.top(), share * box.width(), box.height()), ink)
        for limit, reach in ((verdict.limit_recheck, 5.0), (verdict.limit_reject, 9.0)):
            x = box.left() + min(max(limit / (2 * verdict.limit_reject), 0.0), 1.0) * box.width()
            tick = QRectF(x - 4 * k, box.top() - reach * k, 8 * k, box.height() + 2 * reach * k)
            canvas.fillRect(tick, ground)
            canvas.fillRect(tick.adjusted(2 * k, 0, -2 * k, 0), ink)

    def _boxes(self, area: QRectF) -> tuple[QRectF, QRectF, QRectF, QRectF]:
        """Icon, word, reason, and the bar with its caption."""
        k = self.k
        inside = area.adjusted(24 * k, 20 * k, -24 * k, -16 * k)
        bar_px, line_px = 72 * k, 54 * k
        icon_px = min(164 * k, inside.height() - bar_px - line_px - 8 * k)
        spare = inside.height() - icon_px - line_px - bar_px
        icon = QRectF(inside.left(), inside.top() + spare / 3, icon_px, icon_px)
        title = QRectF(icon.right() + 24 * k, icon.top(), inside.right() - icon.right() - 24 * k, icon_px)
        line = QRectF(inside.left(), icon.bottom() + spare / 3, inside.width(), line_px)
        return icon, title, line, QRectF(inside.left(), inside.bottom() - bar_px, inside.width(), bar_px)
