"""Yield over the last hours against its target, painted by hand."""

import math

from PySide6.QtCore import QPointF, QRectF, Qt
from PySide6.QtGui import QPen, QPolygonF
from PySide6.QtWidgets import QWidget

from station.types import StatusMessage
from ui import theme, words
from ui.canvas import CENTRE, LEFT, RIGHT, Canvas
from ui.panel import Panel

_SPANS_PERCENT = (2.0, 4.0, 10.0, 20.0, 50.0, 100.0)
_MAX_SPAN_S = 7200.0
_MIN_SPAN_S = 300.0
_GAP_S = 180.0
_MINUTE_S = 60.0


def floor_percent(lowest: float) -> float:
    """Where the axis begins: a round span below 100 % that holds `lowest`."""
    return next(
        100.0 - span for span in _SPANS_PERCENT if lowest >= 100.0 - span * 0.95 or span == _SPANS_PERCENT[-1]
    )


class Trend(Panel):
    """The yield's course; a gap in the data is a gap in the line."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent, "Yield trend", "no data yet")
        self._points: tuple[tuple[float, float], ...] = ()
        self._target_percent = 100.0
        self._now_s = 0.0

    def show_status(self, status: StatusMessage | None) -> None:
        """None leaves the course as it was: it is history."""
        if status is None:
            return
        self._points = tuple(point for point in status.trend if all(map(math.isfinite, point)))
        self._target_percent = status.yield_target_percent
        self._now_s = status.sent_unix_ns / 1e9
        last = f"now {self._points[-1][1]:.1f} %" if self._points else "no data yet"
        self.say(f"{last}, target {self._target_percent:g} %")

    def paint(self, canvas: Canvas, area: QRectF) -> None:
        """Axis, target, line."""
        k = self.k
        canvas.fillRect(area, theme.BACKGROUND)
        canvas.panel(area, theme.PANEL, theme.RADIUS_PX * k)
        inside = area.adjusted(16 * k, 8 * k, -16 * k, -6 * k)
        first_s = self._points[0][0] if self._points else self._now_s
        span_s = min(max(self._now_s - first_s, _MIN_SPAN_S), _MAX_SPAN_S)
        title = f"Yield %, last {words.age(span_s)}" if self._points else "Yield %"
        top = QRectF(inside.left(), inside.top(), inside.width(), 28 * k)
        used = canvas.text(top, title, 22 * k, theme.DIM)
        target = f"- - -  target {self._target_percent:g}" if self._now_s else ""
        canvas.text(top.adjusted(used + 16 * k, 0, 0, 0), target, 20 * k, theme.DIM, RIGHT)
        plot = QRectF(inside.left() + 58 * k, top.bottom() + 12 * k, 0, 0)
        plot.setBottomRight(QPointF(inside.right(), inside.bottom() - 28 * k))
        if not self._points:
            canvas.text(plot, "no parts in this time yet", 22 * k, theme.DIM, CENTRE)
            return
        low = floor_percent(min([self._target_percent, *(percent for _, percent in self._points)]))
        start_s = self._now_s - span_s

        def place(unix_s: float, percent: float) -> QPointF:
            return QPointF(
                plot.left() + (unix_s - start_s) / span_s * plot.width(),
                plot.bottom() - (percent - low) / (100.0 - low) * plot.height(),
            )

        for step in range(3):
            percent = low + (100.0 - low) * step / 2
            y = place(start_s, percent).y()
            canvas.setPen(QPen(theme.LINE, max(1.0, k)))
            canvas.drawLine(QPointF(plot.left(), y), QPointF(plot.right(), y))
            canvas.text(
                QRectF(inside.left(), y - 14 * k, 48 * k, 28 * k), f"{percent:g}", 18 * k, theme.DIM, RIGHT
            )
        for share, align in ((0.0, LEFT), (0.5, CENTRE), (1.0, RIGHT)):
            at = words.clock(round((start_s + share * span_s) * 1e9), seconds=False)
            box = QRectF(
                plot.left() + share * plot.width() - share * 120 * k, plot.bottom() + 4 * k, 120 * k, 26 * k
            )
            canvas.text(box, at, 18 * k, theme.DIM, align)
        self._line(
            canvas,
            QPolygonF([place(start_s, self._target_percent), place(self._now_s, self._target_percent)]),
            QPen(theme.DIM, max(1.0, 2 * k), Qt.PenStyle.DashLine),
        )
        pen = QPen(
            theme.TEXT,
            max(1.5, 3 * k),
            Qt.PenStyle.SolidLine,
            Qt.PenCapStyle.RoundCap,
            Qt.PenJoinStyle.RoundJoin,
        )
        for run in _runs([point for point in self._points if point[0] >= start_s]):
            shown = [place(*point) for point in run]
            # A point stands for its whole minute, and a lone one must be seen.
            end = place(min(run[-1][0] + _MINUTE_S, self._now_s), run[-1][1])
            shown.append(QPointF(max(end.x(), shown[-1].x() + 3 * k), end.y()))
            self._line(canvas, QPolygonF(shown), pen)

    @staticmethod
    def _line(canvas: Canvas, line: QPolygonF, pen: QPen) -> None:
        canvas.setPen(pen)
        canvas.setBrush(Qt.BrushStyle.NoBrush)
        canvas.drawPolyline(line)


def _runs(points: list[tuple[float, float]]) -> list[list[tuple[float, float]]]:
    """The points, cut where the line stood still."""
    runs: list[list[tuple[float, float]]] = []
    for point in points:
        if not runs or point[0] - runs[-1][-1][0] > _GAP_S:
            runs.append([])
        runs[-1].append(point)
    return runs
