"""This shift's rejects out of the record: a list to touch, the picture with its heatmap, and the facts."""

from collections.abc import Sequence

from PySide6.QtCore import QRect, QRectF, Signal
from PySide6.QtWidgets import QWidget

from ui import theme, words
from ui.button import TouchButton
from ui.canvas import CENTRE, Canvas, number
from ui.history import MAX_REVIEWED, RecordedPart
from ui.page import Page
from ui.picture import Picture
from ui.picture_view import PictureView
from ui.reject_card import NotPassed, RejectCard, not_passed

_COLUMNS, _ROWS = 2, 3
_CARDS = _COLUMNS * _ROWS


class ReviewPage(Page):
    """Six cards a page; touching one shows it large.

    Signals:
        picture_wanted: (RecordedPart) answer with `set_picture`.
    """

    picture_wanted = Signal(object)

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent, "NG review", "this shift's rejects")
        self._parts: list[RecordedPart] = []
        self._shown: list[NotPassed] = []
        self._first = 0
        self._chosen: RecordedPart | None = None
        self._message = "Reading the record ..."
        self._facts_area = QRectF()
        self.view = PictureView(self, "Reject's picture", "nothing chosen")
        self.cards = [RejectCard(self) for _ in range(_CARDS)]
        for index, card in enumerate(self.cards):
            card.clicked.connect(lambda _checked, index=index: self._choose(self._first + index))
        self._newer = TouchButton("Newer", "Show newer rejects", self, "PgUp", 22)
        self._older = TouchButton("Older", "Show older rejects", self, "PgDown", 22)
        self._newer.clicked.connect(lambda: self._turn(-_CARDS))
        self._older.clicked.connect(lambda: self._turn(_CARDS))
        self.show_parts([])
        self.show_message("Reading the record ...")

    def show_parts(self, parts: Sequence[RecordedPart]) -> None:
        """What the record has, newest first; the newest is chosen."""
        self._parts, self._first, self._chosen = list(parts), 0, None
        self._message = "Nothing was rejected in this shift"
        more = " or more" if len(parts) == MAX_REVIEWED else ""
        self.note(f"{len(parts)}{more} parts of this shift did not pass" if parts else "")
        self._turn(0)
        if parts:
            self._choose(0)

    def show_message(self, message: str) -> None:
        """Why there is nothing to see."""
        self._message = message
        self.say(message)

    def set_picture(self, uid: str, picture: Picture) -> None:
        """A picture that was asked for."""
        for part, card in zip(self._shown, self.cards, strict=False):
            if part.uid == uid:
                part.picture = picture
                card.show_part(part)
        if self._chosen is not None and self._chosen.uid == uid:
            self.view.show_picture(picture)

    def lay_out(self, content: QRect) -> None:
        """Cards left, picture right, facts below the picture."""
        k = self.k
        gap_px = round(theme.GAP_PX * k)
        paging_px = round(64 * k)
        list_px = round(470 * k)
        card_width_px = (list_px - gap_px) // _COLUMNS
        card_height_px = (content.height() - paging_px - _ROWS * gap_px) // _ROWS
        for index, card in enumerate(self.cards):
            row, column = divmod(index, _COLUMNS)
            x, y = (
                content.x() + column * (card_width_px + gap_px),
                content.y() + row * (card_height_px + gap_px),
            )
            card.setGeometry(x, y, card_width_px, card_height_px)
            card.rescale(k)
        for column, button in enumerate((self._newer, self._older)):
            x = content.x() + column * (card_width_px + gap_px)
            button.setGeometry(x, content.bottom() - paging_px + 1, card_width_px, paging_px)
            button.rescale(k)
        facts_px = round(132 * k)
        left_px = content.x() + list_px + 2 * gap_px
        width_px = content.right() - left_px + 1
        self.view.setGeometry(left_px, content.y(), width_px, content.height() - facts_px - gap_px)
        self.view.rescale(k)
        self._facts_area = QRectF(left_px, content.bottom() - facts_px + 1, width_px, facts_px)

    def _turn(self, cards: int) -> None:
        self._first = min(max(self._first + cards, 0), max(0, (len(self._parts) - 1) // _CARDS * _CARDS))
        page = self._parts[self._first : self._first + _CARDS]
        self._shown = [not_passed(part) for part in page]
        for index, card in enumerate(self.cards):
            card.show_part(self._shown[index] if index < len(page) else None)
            card.setVisible(index < len(page))
        self._mark()
        self._newer.setVisible(self._first > 0)
        self._older.setVisible(self._first + _CARDS < len(self._parts))
        self.view.setVisible(bool(self._parts))
        for part in page:
            self.picture_wanted.emit(part)

    def _choose(self, index: int) -> None:
        self._chosen = self._parts[index]
        self._mark()
        part = self._shown[index - self._first]
        self.view.fit()
        self.view.show_picture(part.picture)
        self.view.say(f"part {part.part_seq}, {part.note}")
        self.say(f"{len(self._parts)} rejects; chosen: part {part.part_seq}, {part.note}")

    def _mark(self) -> None:
        for part, card in zip(self._shown, self.cards, strict=False):
            card.setChecked(self._chosen is not None and part.uid == self._chosen.uid)

    def paint(self, canvas: Canvas, area: QRectF) -> None:
        """Facts of the chosen part, or why there is none."""
        super().paint(canvas, area)
        k, part = self.k, self._chosen
        if part is None:
            middle = area.adjusted(20 * k, 100 * k, -20 * k, 0)
            canvas.text(middle, self._message, 28 * k, theme.DIM, CENTRE, shrink_to_px=16 * k)
            return
        box = self._facts_area
        canvas.panel(box, theme.BACKGROUND, theme.RADIUS_PX * k)
        inside = box.adjusted(16 * k, 8 * k, -16 * k, -8 * k)
        line_px = inside.height() / 3
        icon = QRectF(inside.left(), inside.top() + 2 * k, 34 * k, 34 * k)
        canvas.verdict_shape(part.verdict, icon, theme.TEXT)
        title = QRectF(icon.right() + 12 * k, inside.top(), inside.right() - icon.right() - 12 * k, line_px)
        canvas.text(title, not_passed(part).note, 26 * k, bold=True, shrink_to_px=18 * k)
        score = f"score {words.score(part.score)}   limit {words.score(part.limit_reject)}"
        which = f"Part {number(part.part_seq)}   {words.clock(part.triggered_unix_ns)}"
        first = f"{which}   {score}   {part.latency_ms:.0f} ms"
        second = "   ".join(
            filter(None, (part.recipe, f"lot {part.lot}" if part.lot else "", part.camera_id, part.model_id))
        )
        for row, text in ((1, first), (2, second)):
            line = QRectF(inside.left(), inside.top() + row * line_px, inside.width(), line_px)
            canvas.text(line, text, 21 * k, theme.TEXT if row == 1 else theme.DIM, shrink_to_px=16 * k)
