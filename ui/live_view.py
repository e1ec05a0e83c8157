"""The live picture, or a frozen one, with what belongs to it: camera, part, time, line state, zoom."""

import time

from PySide6.QtCore import QRectF, Signal
from PySide6.QtGui import QColor, QFontMetricsF
from PySide6.QtWidgets import QWidget

from station.types import EngineState, StatusMessage, Verdict, VerdictMessage
from ui import theme, words
from ui.button import TouchButton
from ui.canvas import CENTRE, LEFT, Canvas, number
from ui.picture import Picture
from ui.picture_view import ZOOM_STEP, PictureView

_BADGE_PX = 36
_TOOL_PX = 64
_BAND_PX = 92
_QUIET_S = 5.0  # a running line without a picture for so long says so


class LiveView(PictureView):
    """The line's eye. Freezing shows one part for as long as wanted; the line goes on.

    Signals:
        thawed: the operator wants to see the line again.
    """

    thawed = Signal()

    def __init__(self, parent: QWidget, address: str) -> None:
        super().__init__(parent, "Live picture", "waiting for the station")
        self._address = address
        self._status: StatusMessage | None = None
        self._silent_s: float | None = 0.0
        self._heard = False
        self._live: Picture | None = None
        self._live_since_s = time.monotonic()
        self._frozen: Picture | None = None
        self._frozen_note = ""
        self._unpictured: VerdictMessage | None = None
        self._tools = (
            TouchButton("−", "Zoom out", self, "-", 34),
            TouchButton("+", "Zoom in", self, "+", 34),
            TouchButton("Fit", "Show the whole picture", self, "0", 24),
            TouchButton("Opacity", "Step the heatmap's opacity", self, "O", 24),
        )
        minus, plus, fit, opacity = self._tools
        minus.clicked.connect(lambda: self.zoom_by(1 / ZOOM_STEP))
        plus.clicked.connect(lambda: self.zoom_by(ZOOM_STEP))
        fit.clicked.connect(self.fit)
        opacity.clicked.connect(self.next_opacity)
        self._thaw = TouchButton("Back to live", "Show the line again", self, "Escape")
        self._thaw.clicked.connect(self.thawed)
        self._thaw.hide()

    @property
    def frozen(self) -> bool:
        """Whether one part is held."""
        return self._frozen is not None

    def show_live(self, picture: Picture) -> None:
        """The latest picture; kept for later while another is frozen."""
        self._live, self._live_since_s = picture, time.monotonic()
        if self._unpictured is not None and picture.part_seq >= self._unpictured.part_seq:
            self._unpictured = None
        if not self.frozen:
            self.show_picture(picture)
            self._describe()

    def show_verdict(self, verdict: VerdictMessage) -> None:
        """A part that was not inspected may never have a picture: then an older one stays, labelled so."""
        shown_seq = self._live.part_seq if self._live else -1
        missing = verdict.verdict is Verdict.NOT_INSPECTED and verdict.part_seq > shown_seq
        self._unpictured = verdict if missing else None
        self._describe()

    def show_status(self, status: StatusMessage | None, silent_s: float | None, heard: bool) -> None:
        """None = no signal for `silent_s`; `heard` tells whether there ever was one."""
        self._status, self._silent_s, self._heard = status, silent_s, heard
        if status is None:
            self._unpictured = None
        self._describe()

    def freeze(self, picture: Picture, note: str) -> None:
        """Hold a part; `note` says what became of it."""
        self._frozen, self._frozen_note = picture, note
        self._thaw.show()
        self.fit()
        self.show_picture(picture)
        self._describe()

    def thaw(self) -> None:
        """Back to the line."""
        self._frozen = None
        self._thaw.hide()
        self.fit()
        self.show_picture(self._live)
        self._describe()

    def picture_area(self) -> QRectF:
        """A frozen picture leaves room for the band that says so."""
        area = QRectF(self.rect())
        return area.adjusted(0, _BAND_PX * self.k, 0, 0) if self.frozen else area

    def rescale(self, k: float) -> None:
        """Tools bottom right, the way back top right."""
        super().rescale(k)
        side, gap, right_px = round(_TOOL_PX * k), round(8 * k), self.width() - round(12 * k)
        top_px = self.height() - side - round(12 * k)
        for tool in reversed(self._tools):
            width_px = round(1.9 * side) if tool.text() == "Opacity" else side
            right_px -= width_px
            tool.setGeometry(right_px, top_px, width_px, side)
            tool.rescale(k)
            right_px -= gap
        width_px, height_px = round(230 * k), round((_BAND_PX - 20) * k)
        self._thaw.setGeometry(self.width() - width_px - round(10 * k), round(10 * k), width_px, height_px)
        self._thaw.rescale(k)

    def _describe(self) -> None:
        if self.frozen:
            self.say(f"frozen: {self._frozen_note}")
        elif self._status is None:
            self.say(self._silence())
        elif self._live is None:
            self.say(f"no picture yet, line {self._status.state}")
        else:
            missing = f"; no picture of part {self._unpictured.part_seq}" if self._unpictured else ""
            verdict = words.WORDS[self._live.verdict]
            self.say(f"part {self._live.part_seq}, {verdict}, line {self._status.state}{missing}")

    def _silence(self) -> str:
        word = "NO SIGNAL" if self._heard else "WAITING FOR THE STATION"
        return f"{word}  {words.age(self._silent_s or 0.0)}"

    def paint(self, canvas: Canvas, area: QRectF) -> None:
        """The picture and its badges; a frozen one even without signal, since it is history either way."""
        k = self.k
        if self._frozen is not None:
            self.paint_picture(canvas, area, greyed=False)
            self._band(canvas, area, self._frozen)
            return
        stale = self._status is None
        # A picture that is not the latest part's must not look as if it were.
        self.paint_picture(canvas, area, greyed=stale or self._unpictured is not None)
        if stale:
            middle = QRectF(area.left() + 20 * k, area.center().y() - 70 * k, area.width() - 40 * k, 84 * k)
            canvas.text(middle, self._silence(), 72 * k, theme.TEXT, CENTRE, bold=True, shrink_to_px=36 * k)
            below = QRectF(middle.left(), middle.bottom() + 8 * k, middle.width(), 40 * k)
            advice = f"No word from the station's engine at {self._address}. Check that it runs."
            canvas.text(below, advice, 24 * k, theme.DIM, CENTRE, shrink_to_px=16 * k)
        elif self._live is None:
            canvas.text(area, "No picture yet", 36 * k, theme.DIM, CENTRE)
        self._badges(canvas, area)

    def _badges(self, canvas: Canvas, area: QRectF) -> None:
        k, live, status = self.k, self._live, self._status
        inset = 12 * k
        if live is not None:
            rate = f"{live.fps:.1f} fps" if status is not None else "– fps"
            self._badge(canvas, area.left() + inset, area.top() + inset, f"{live.camera_id}   {rate}")
            text = f"Part {number(live.part_seq)}   {words.clock(live.triggered_unix_ns)}"
            width_px = QFontMetricsF(theme.font(22 * k)).horizontalAdvance(text) + 62 * k
            self._badge(canvas, area.right() - inset - width_px, area.top() + inset, text, live.verdict)
        if status is None:
            return
        quiet_s = time.monotonic() - self._live_since_s
        running = status.state is EngineState.RUNNING
        note = f"{status.parts_per_s:.1f} parts/s" if running else status.state_reason
        if running and live is not None and quiet_s > max(_QUIET_S, 3 * status.takt_ms / 1000):
            note = f"no picture for {words.age(quiet_s)}"
        room = self._tools[0].x() - area.left() - 2 * inset
        text = "   ".join(filter(None, (status.state, note)))
        self._badge(canvas, area.left() + inset, area.bottom() - inset - _BADGE_PX * k, text, room_px=room)
        if self._unpictured is not None:
            missed = f"Part {number(self._unpictured.part_seq)} has no picture: {self._unpictured.reason}"
            band = QRectF(area.left(), area.top() + 60 * k, area.width(), 52 * k)
            canvas.fillRect(band, theme.PALE)
            text = f"{missed}. Shown: part {number(live.part_seq)}" if live else missed
            canvas.text(band.adjusted(20 * k, 0, -20 * k, 0), text, 26 * k, theme.INK, LEFT, True, 17 * k)

    def _badge(
        self,
        canvas: Canvas,
        x: float,
        y: float,
        text: str,
        verdict: Verdict | None = None,
        room_px: float | None = None,
    ) -> None:
        k = self.k
        icon_px = 22 * k if verdict else 0.0
        lead = 12 * k + (icon_px + 8 * k if verdict else 0.0)
        width_px = QFontMetricsF(theme.font(22 * k)).horizontalAdvance(text) + lead + 20 * k
        box = QRectF(x, y, min(width_px, room_px) if room_px is not None else width_px, _BADGE_PX * k)
        canvas.panel(box, QColor(0, 0, 0, 190), 4 * k)
        if verdict is not None:
            canvas.verdict_shape(
                verdict, QRectF(x + 12 * k, box.center().y() - icon_px / 2, icon_px, icon_px), theme.WHITE
            )
        canvas.text(box.adjusted(lead, 0, -12 * k, 0), text, 22 * k, theme.WHITE)

    def _band(self, canvas: Canvas, area: QRectF, frozen: Picture) -> None:
        """Unmistakable: this is not the line."""
        k = self.k
        band = QRectF(area.left(), area.top(), area.width(), _BAND_PX * k)
        canvas.fillRect(band, theme.TEXT)
        icon = QRectF(band.left() + 18 * k, band.center().y() - 28 * k, 56 * k, 56 * k)
        canvas.verdict_shape(frozen.verdict, icon, theme.INK)
        text = QRectF(
            icon.right() + 18 * k, band.top() + 10 * k, self._thaw.x() - icon.right() - 34 * k, 42 * k
        )
        title = f"FROZEN   part {number(frozen.part_seq)}   {words.clock(frozen.triggered_unix_ns)}"
        canvas.text(text, title, 32 * k, theme.INK, bold=True, shrink_to_px=18 * k)
        note = f"{self._frozen_note}. The line goes on."
        canvas.text(
            QRectF(text.left(), text.bottom(), text.width(), 32 * k),
            note,
            22 * k,
            theme.INK,
            shrink_to_px=16 * k,
        )
        canvas.setPen(theme.TEXT)
        for inset in range(max(2, round(4 * k))):
            canvas.drawRect(QRectF(self.rect()).adjusted(inset, inset, -inset - 1, -inset - 1))
