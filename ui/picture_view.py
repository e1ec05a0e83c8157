"""A picture with its heatmap and contours: fitted, zoomed, panned. Used live, frozen, and in the review."""

from PySide6.QtCore import QPointF, QRectF, QSizeF, Qt
from PySide6.QtGui import QColor, QImage, QMouseEvent, QTransform, QWheelEvent
from PySide6.QtWidgets import QWidget

from ui import theme
from ui.canvas import CENTRE, Canvas
from ui.panel import Panel
from ui.picture import Picture, fitted_size

MAX_ZOOM = 8.0
ZOOM_STEP = 1.5
OPACITIES = (1.0, 0.66, 0.33)


class PictureView(Panel):
    """Shows one `Picture` at a time.

    Attributes:
        picture: what is shown, or None.
        heatmap_shown: heatmap and contours go and come together.
        opacity: of the heatmap, 0 to 1.
        zoom: 1 = the whole picture fits.
    """

    def __init__(self, parent: QWidget | None, name: str, description: str) -> None:
        super().__init__(parent, name, description)
        self.picture: Picture | None = None
        self.heatmap_shown = True
        self.opacity = OPACITIES[0]
        self.zoom = 1.0
        self._centre = QPointF(0.5, 0.5)  # of the view, in fractions of the picture
        self._dragged_from: QPointF | None = None
        self._grey: tuple[Picture, QImage] | None = None

    def show_picture(self, picture: Picture | None) -> None:
        """Replace the picture; zoom and place stay, so that one spot can be watched on part after part."""
        self.picture = picture
        self.update()

    def show_heatmap(self, shown: bool) -> None:
        """Heatmap and contours on or off."""
        self.heatmap_shown = shown
        self.update()

    def next_opacity(self) -> None:
        """Step the heatmap's opacity: full, two thirds, one third."""
        self.opacity = OPACITIES[(OPACITIES.index(self.opacity) + 1) % len(OPACITIES)]
        self.update()

    def zoom_by(self, factor: float, at: QPointF | None = None) -> None:
        """Zoom round a point of the widget (default: its centre), between fit and `MAX_ZOOM`."""
        before = self._fraction_at(at or QPointF(self.rect().center()))
        self.zoom = min(max(self.zoom * factor, 1.0), MAX_ZOOM)
        after = self._fraction_at(at or QPointF(self.rect().center()))
        self._move(self._centre + before - after)

    def fit(self) -> None:
        """Show the whole picture."""
        self.zoom = 1.0
        self._move(QPointF(0.5, 0.5))

    def picture_area(self) -> QRectF:
        """Where pictures are painted; the rest is for captions."""
        return QRectF(self.rect())

    def target(self) -> QRectF:
        """Where the whole picture would lie; larger than the widget while zoomed."""
        area = self.picture_area()
        if self.picture is None or self.picture.image.isNull():
            return area
        image = self.picture.image
        size = fitted_size(image.width(), image.height(), (int(area.width()), int(area.height())))
        zoomed = QSizeF(size.width() * self.zoom, size.height() * self.zoom)
        corner = area.center() - QPointF(
            self._centre.x() * zoomed.width(), self._centre.y() * zoomed.height()
        )
        if self.zoom == 1.0:
            corner = QPointF(round(corner.x()), round(corner.y()))
        return QRectF(corner, zoomed)

    def wheelEvent(self, event: QWheelEvent) -> None:
        """Zoom round the pointer."""
        if event.angleDelta().y():
            self.zoom_by(ZOOM_STEP if event.angleDelta().y() > 0 else 1 / ZOOM_STEP, event.position())

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Begin to drag."""
        if event.button() == Qt.MouseButton.LeftButton:
            self._dragged_from = event.position()

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """Drag a zoomed picture."""
        if self._dragged_from is not None and self.zoom > 1.0:
            target = self.target()
            moved = event.position() - self._dragged_from
            self._dragged_from = event.position()
            self._move(self._centre - QPointF(moved.x() / target.width(), moved.y() / target.height()))

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        """End of a drag."""
        self._dragged_from = None

    def _fraction_at(self, point: QPointF) -> QPointF:
        target = self.target()
        return QPointF((point.x() - target.x()) / target.width(), (point.y() - target.y()) / target.height())

    def _move(self, centre: QPointF) -> None:
        half = 0.5 / self.zoom
        self._centre = QPointF(min(max(centre.x(), half), 1 - half), min(max(centre.y(), half), 1 - half))
        self.update()

    def paint(self, canvas: Canvas, area: QRectF) -> None:
        """The picture, or that there is none."""
        self.paint_picture(canvas, area, greyed=False)

    def paint_picture(self, canvas: Canvas, area: QRectF, greyed: bool) -> None:
        """Picture, heatmap, contours; grey and without overlay when it is no longer true."""
        canvas.fillRect(area, theme.WELL)
        picture = self.picture
        if picture is None:
            return
        if picture.image.isNull():
            canvas.text(area, "No picture of this part", 30 * self.k, theme.DIM, CENTRE)
            return
        target = self.target()
        canvas.save()
        canvas.setClipRect(self.picture_area())
        if greyed:
            canvas.drawImage(target, self._greyed(picture))
            canvas.fillRect(area, QColor(21, 24, 26, 170))
        elif picture.fitted.size() == target.size().toSize() and self.zoom == 1.0:
            canvas.drawImage(target.topLeft(), picture.fitted)
        else:
            canvas.drawImage(target, picture.image)
        if self.heatmap_shown and not greyed:
            self._overlay(canvas, picture, target)
        canvas.restore()

    def _overlay(self, canvas: Canvas, picture: Picture, target: QRectF) -> None:
        if picture.heatmap is not None:
            canvas.setOpacity(self.opacity)
            canvas.drawImage(target, picture.heatmap)
            canvas.setOpacity(1.0)
        place = QTransform(target.width(), 0, 0, target.height(), target.x(), target.y())
        for line in picture.contours:
            canvas.halo_line(place.map(line), max(1.5, 3 * self.k))

    def _greyed(self, picture: Picture) -> QImage:
        if self._grey is None or self._grey[0] is not picture:
            source = picture.image if picture.fitted.isNull() else picture.fitted
            self._grey = (picture, source.convertToFormat(QImage.Format.Format_Grayscale8))
        return self._grey[1]
