"""The last parts that did not pass: a column of four beside the picture, or a row of five below it."""

from collections.abc import Sequence

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QWidget

from station.types import VerdictMessage
from ui import theme
from ui.feed import KEPT_NOT_PASSED
from ui.history import RecordedPart
from ui.picture import Picture
from ui.reject_card import NotPassed, RejectCard, not_passed


class RejectStrip(QWidget):
    """Newest first. Fed by the record at start, by the line from then on.

    Signals:
        chosen: (NotPassed) hold this part in the live view.
        picture_missing: (uid) the line did not show this part; the record may have its picture.
    """

    chosen = Signal(object)
    picture_missing = Signal(str)

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.setAccessibleName("Last rejects")
        self._parts: list[NotPassed] = []
        self._held: NotPassed | None = None
        self.cards = [RejectCard(self) for _ in range(KEPT_NOT_PASSED)]
        for card in self.cards:
            card.clicked.connect(lambda _checked, card=card: self._press(card))

    def add(self, verdicts: Sequence[VerdictMessage], pictures: Sequence[Picture]) -> None:
        """New ones, oldest first; pictures are matched by part."""
        for verdict in verdicts:
            if all(part.uid != verdict.uid for part in self._parts):
                self._parts.insert(0, not_passed(verdict))
        del self._parts[KEPT_NOT_PASSED:]
        for part in self._parts:
            for picture in pictures:
                same = (
                    picture.part_seq == part.part_seq and picture.triggered_unix_ns == part.triggered_unix_ns
                )
                if part.picture is None and same:
                    part.picture = picture
        if verdicts or pictures:
            self._fill()

    def add_recorded(self, parts: Sequence[RecordedPart]) -> None:
        """What the record had at the start, newest first: behind whatever the line has brought meanwhile."""
        known = {part.uid for part in self._parts}
        self._parts += [not_passed(part) for part in parts if part.uid not in known]
        self._parts.sort(key=lambda part: part.triggered_unix_ns, reverse=True)
        del self._parts[KEPT_NOT_PASSED:]
        self._fill()

    def set_picture(self, uid: str, picture: Picture) -> None:
        """A picture from the record."""
        for part in self._parts:
            if part.uid == uid and part.picture is None:
                part.picture = picture
                self._fill()

    def ask_missing(self) -> None:
        """Ask for every picture that did not come by itself."""
        for part in self._parts:
            if part.picture is None:
                self.picture_missing.emit(part.uid)

    def hold(self, part: NotPassed | None) -> None:
        """Mark the part that is frozen in the live view, or none."""
        self._held = part
        self._fill()

    def lay_out(self, k: float, column: bool) -> None:
        """A column of four, or a row of five."""
        gap_px = theme.GAP_PX * k
        count = 4 if column else KEPT_NOT_PASSED
        length_px = ((self.height() if column else self.width()) - (count - 1) * gap_px) / count
        for index, card in enumerate(self.cards):
            start, end = round(index * (length_px + gap_px)), round(index * (length_px + gap_px) + length_px)
            if column:
                card.setGeometry(0, start, self.width(), end - start)
            else:
                card.setGeometry(start, 0, end - start, self.height())
            card.setVisible(index < count)
            card.rescale(k)

    def _fill(self) -> None:
        for index, card in enumerate(self.cards):
            part = self._parts[index] if index < len(self._parts) else None
            card.show_part(part)
            card.setChecked(part is not None and part is self._held)

    def _press(self, card: RejectCard) -> None:
        card.setChecked(card.part is not None and card.part is self._held)
        if card.part is not None:
            self.chosen.emit(card.part)
