"""One part that did not pass, as a card to touch: picture, verdict's shape, reason or score, time."""

from dataclasses import dataclass

from PySide6.QtCore import QPointF, QRectF, Qt
from PySide6.QtGui import QColor, QImage, QMouseEvent, QPaintEvent
from PySide6.QtWidgets import QAbstractButton, QWidget

from station.types import Verdict, VerdictMessage
from ui import theme, words
from ui.canvas import CENTRE, RIGHT, Canvas, number
from ui.history import RecordedPart
from ui.picture import Picture

_THUMBNAIL_PX = 480


@dataclass(slots=True, eq=False)
class NotPassed:
    """A part that did not pass: from the line or from the record; its picture comes when it comes."""

    uid: str
    part_seq: int
    verdict: Verdict
    reason: str
    score: float | None
    limit_reject: float
    triggered_unix_ns: int
    picture: Picture | None = None

    @property
    def note(self) -> str:
        """Verdict and why, in words."""
        share = self.score / self.limit_reject if self.score is not None and self.limit_reject > 0 else None
        times = f", {share:.2f} × the limit" if share is not None else ""
        return f"{words.WORDS[self.verdict]}: {self.reason}{times}"


def not_passed(part: VerdictMessage | RecordedPart) -> NotPassed:
    """What both sources have in common."""
    return NotPassed(
        part.uid,
        part.part_seq,
        part.verdict,
        part.reason,
        part.score,
        part.limit_reject,
        part.triggered_unix_ns,
    )


class RejectCard(QAbstractButton):
    """Paints a `NotPassed`, or an empty place.

    Attributes:
        part: what it shows; None = empty and not to be pressed.
    """

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.k = 1.0
        self.part: NotPassed | None = None
        self._thumbnail: tuple[Picture, QImage] | None = None
        self.setCheckable(True)
        self.setAttribute(Qt.WidgetAttribute.WA_OpaquePaintEvent)
        self.setAccessibleName("Reject")
        self.show_part(None)

    def show_part(self, part: NotPassed | None) -> None:
        """Show another part, or the same with its picture."""
        self.part = part
        self.setEnabled(part is not None)
        text = (
            f"part {part.part_seq}, {part.note}, {words.clock(part.triggered_unix_ns)}" if part else "empty"
        )
        self.setAccessibleDescription(text)
        self.setToolTip(f"Hold {text}" if part else "")
        self.update()

    def rescale(self, k: float) -> None:
        """Take a new scale."""
        self.k = k
        self.update()

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """A finger that slips is still a touch."""
        event.accept()

    def paintEvent(self, event: QPaintEvent) -> None:
        """Picture above, two lines below."""
        k, part = self.k, self.part
        with Canvas(self) as canvas:
            area = QRectF(self.rect())
            canvas.fillRect(area, theme.BACKGROUND)
            canvas.panel(area, theme.PANEL, theme.RADIUS_PX * k)
            if part is None:
                canvas.text(area, "–", 22 * k, theme.LINE, CENTRE)
                return
            captions_px = 60 * k
            well = area.adjusted(4 * k, 4 * k, -4 * k, -captions_px)
            self._paint_picture(canvas, well, part)
            captions = QRectF(
                area.left() + 10 * k, well.bottom() + 4 * k, area.width() - 20 * k, captions_px - 8 * k
            )
            icon_px = 22 * k
            icon = QRectF(captions.left(), captions.top() + 2 * k, icon_px, icon_px)
            canvas.verdict_shape(part.verdict, icon, theme.TEXT)
            first = QRectF(captions.left(), captions.top(), captions.width(), captions.height() / 2)
            beside = first.adjusted(icon_px + 8 * k, 0, 0, 0)
            at = canvas.text(beside, words.clock(part.triggered_unix_ns), 19 * k, theme.DIM, RIGHT)
            beside.setRight(beside.right() - at - 8 * k)
            shown = words.score(part.score) if part.score is not None else number(part.part_seq)
            canvas.text(beside, shown, 21 * k, bold=True)
            canvas.text(
                first.translated(0, first.height()), part.reason, 18 * k, theme.DIM, shrink_to_px=16 * k
            )
            if self.isChecked() or self.hasFocus():
                canvas.panel(area, QColor(0, 0, 0, 0), theme.RADIUS_PX * k, theme.TEXT, max(2.0, 4 * k))

    def _paint_picture(self, canvas: Canvas, well: QRectF, part: NotPassed) -> None:
        canvas.fillRect(well, theme.WELL)
        picture = part.picture
        if picture is None or picture.image.isNull():
            text = "no picture" if picture is not None or part.verdict is Verdict.NOT_INSPECTED else "..."
            canvas.text(well, text, 19 * self.k, theme.DIM, CENTRE)
            return
        thumbnail = self._small(picture)
        # Fill the card round the largest region: the defect must be seen, empty edges need not.
        scale = max(well.width() / thumbnail.width(), well.height() / thumbnail.height())
        width, height = well.width() / scale, well.height() / scale
        focus = picture.contours[0].boundingRect().center() if picture.contours else QPointF(0.5, 0.5)
        source = QRectF(
            min(max(focus.x() * thumbnail.width() - width / 2, 0.0), thumbnail.width() - width),
            min(max(focus.y() * thumbnail.height() - height / 2, 0.0), thumbnail.height() - height),
            width,
            height,
        )
        canvas.drawImage(well, thumbnail, source)
        if picture.heatmap is not None:
            ratio_x = picture.heatmap.width() / thumbnail.width()
            ratio_y = picture.heatmap.height() / thumbnail.height()
            canvas.drawImage(
                well,
                picture.heatmap,
                QRectF(
                    source.x() * ratio_x,
                    source.y() * ratio_y,
                    source.width() * ratio_x,
                    source.height() * ratio_y,
                ),
            )

    def _small(self, picture: Picture) -> QImage:
        """Reduced once, not at every repaint."""
        if self._thumbnail is None or self._thumbnail[0] is not picture:
            small = picture.image.scaled(
                _THUMBNAIL_PX,
                _THUMBNAIL_PX,
                Qt.AspectRatioMode.KeepAspectRatio,
                Qt.TransformationMode.SmoothTransformation,
            )
            self._thumbnail = (picture, small)
        return self._thumbnail[1]
