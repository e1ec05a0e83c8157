"""How a panel paints: text that fits or elides, and the shapes that carry a meaning without their colour."""

import math
from typing import Self

from PySide6.QtCore import QPointF, QRectF, Qt
from PySide6.QtGui import QColor, QFontMetricsF, QPainter, QPainterPath, QPen, QPolygonF
from PySide6.QtWidgets import QWidget

from station.types import Verdict
from ui import theme

LEFT = Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
RIGHT = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
CENTRE = Qt.AlignmentFlag.AlignCenter


def number(value: int) -> str:
    """An integer with narrow spaces between thousands."""
    return f"{value:,}".replace(",", "\u202f")


class Canvas(QPainter):
    """A painter of one widget; use it in a `with`, so that it always ends."""

    def __init__(self, widget: QWidget) -> None:
        super().__init__(widget)
        self.setRenderHints(QPainter.RenderHint.Antialiasing | QPainter.RenderHint.SmoothPixmapTransform)

    def __enter__(self) -> Self:
        return self

    def text(
        self,
        box: QRectF,
        text: str,
        size_px: float,
        colour: QColor = theme.TEXT,
        align: Qt.AlignmentFlag = LEFT,
        bold: bool = False,
        shrink_to_px: float | None = None,
    ) -> float:
        """One line of text in `box`: shrunk down to `shrink_to_px` where given, then elided.

        Returns:
            The width in pixels that the text took.
        """
        if not text or box.width() <= 0:
            return 0.0
        font, width_px = theme.font(size_px, bold), 0.0
        smallest_px = font.pixelSize() if shrink_to_px is None else theme.font(shrink_to_px).pixelSize()
        for pixels in range(font.pixelSize(), min(smallest_px, font.pixelSize()) - 1, -1):
            font.setPixelSize(pixels)
            width_px = QFontMetricsF(font).horizontalAdvance(text)
            if width_px <= box.width():
                break
        else:
            text = QFontMetricsF(font).elidedText(text, Qt.TextElideMode.ElideRight, box.width())
            width_px = QFontMetricsF(font).horizontalAdvance(text)
        self.setFont(font)
        self.setPen(colour)
        self.drawText(box, align | Qt.TextFlag.TextSingleLine, text)
        return width_px

    def paragraph(self, box: QRectF, text: str, size_px: float, colour: QColor, shrink_to_px: float) -> None:
        """Bold text wrapped into `box` from its top, shrunk if need be down to `shrink_to_px`."""
        flags = Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignTop | Qt.TextFlag.TextWordWrap
        self.setPen(colour)
        for pixels in range(round(size_px), round(shrink_to_px) - 1, -1):
            self.setFont(theme.font(pixels, bold=True))
            if self.boundingRect(box, flags, text).height() <= box.height():
                break
        self.drawText(box, flags, text)

    def panel(
        self, box: QRectF, colour: QColor, radius_px: float, border: QColor | None = None, pen_px: float = 0
    ) -> None:
        """A rounded rectangle."""
        self.setBrush(colour)
        if border is None:
            self.setPen(Qt.PenStyle.NoPen)
        else:
            self.setPen(QPen(border, pen_px))
            box = box.adjusted(pen_px / 2, pen_px / 2, -pen_px / 2, -pen_px / 2)
        self.drawRoundedRect(box, radius_px, radius_px)

    def verdict_shape(self, verdict: Verdict, box: QRectF, colour: QColor) -> None:
        """The verdict's shape in the square `box`: circle-tick, triangle, octagon-cross, barred square."""
        side = box.width()
        stroke = side * 0.085
        inner = box.adjusted(stroke / 2, stroke / 2, -stroke / 2, -stroke / 2)
        self._stroke(colour, stroke)
        match verdict:
            case Verdict.PASS:
                self.drawEllipse(inner)
                self.drawPolyline(_points(box, (0.28, 0.53), (0.44, 0.69), (0.74, 0.35)))
            case Verdict.REJECT:
                self.drawPolygon(_octagon(inner))
                self.drawLine(_point(box, 0.33, 0.33), _point(box, 0.67, 0.67))
                self.drawLine(_point(box, 0.67, 0.33), _point(box, 0.33, 0.67))
            case Verdict.RECHECK:
                self.drawPolygon(_points(box, (0.5, 0.07), (0.95, 0.9), (0.05, 0.9)))
                self.drawLine(_point(box, 0.5, 0.38), _point(box, 0.5, 0.62))
                self.drawPoint(_point(box, 0.5, 0.76))
            case Verdict.NOT_INSPECTED:
                self.drawRect(inner.adjusted(side * 0.03, side * 0.03, -side * 0.03, -side * 0.03))
                self.drawLine(_point(box, 0.14, 0.86), _point(box, 0.86, 0.14))

    def pause_shape(self, box: QRectF, colour: QColor) -> None:
        """Two bars."""
        for left in (0.22, 0.6):
            bar = QRectF(
                box.x() + left * box.width(),
                box.y() + box.height() * 0.12,
                box.width() * 0.18,
                box.height() * 0.76,
            )
            self.fillRect(bar, colour)

    def warning_shape(self, box: QRectF, colour: QColor) -> None:
        """A diamond with an exclamation mark: something is out of order."""
        self._stroke(colour, box.width() * 0.085)
        self.drawPolygon(_points(box, (0.5, 0.05), (0.95, 0.5), (0.5, 0.95), (0.05, 0.5)))
        self.drawLine(_point(box, 0.5, 0.3), _point(box, 0.5, 0.54))
        self.drawPoint(_point(box, 0.5, 0.69))

    def ring_shape(self, box: QRectF, colour: QColor) -> None:
        """An empty ring: waiting, unknown or off."""
        stroke = box.width() * 0.085
        self._stroke(colour, stroke)
        self.drawEllipse(box.adjusted(stroke, stroke, -stroke, -stroke))

    def halo_line(self, polygon: QPolygonF, width_px: float, closed: bool = True) -> None:
        """A white line in a dark one: visible on any picture."""
        path = QPainterPath()
        path.addPolygon(polygon)
        if closed:
            path.closeSubpath()
        for colour, wide in ((QColor(0, 0, 0, 220), 2.2), (theme.WHITE, 1.0)):
            self._stroke(colour, width_px * wide)
            self.drawPath(path)

    def _stroke(self, colour: QColor, width_px: float) -> None:
        self.setBrush(Qt.BrushStyle.NoBrush)
        self.setPen(
            QPen(colour, width_px, Qt.PenStyle.SolidLine, Qt.PenCapStyle.RoundCap, Qt.PenJoinStyle.RoundJoin)
        )


def _point(box: QRectF, x: float, y: float) -> QPointF:
    return QPointF(box.x() + x * box.width(), box.y() + y * box.height())


def _points(box: QRectF, *fractions: tuple[float, float]) -> QPolygonF:
    return QPolygonF([_point(box, x, y) for x, y in fractions])


def _octagon(box: QRectF) -> QPolygonF:
    near, far = 1 - 1 / math.sqrt(2), 1 / math.sqrt(2)
    return _points(box, (near, 0), (far, 0), (1, near), (1, far), (far, 1), (near, 1), (0, far), (0, near))
