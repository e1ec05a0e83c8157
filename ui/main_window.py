"""The whole screen: where everything is, and who tells whom."""

import time
from pathlib import Path

from PySide6.QtCore import QRect, Qt, QTimer
from PySide6.QtGui import QCloseEvent, QPalette, QResizeEvent
from PySide6.QtWidgets import QWidget

from station.types import Alarm, StatusMessage
from ui import theme
from ui.alarm_strip import AlarmStrip
from ui.alarms import needs_attention
from ui.alarms_page import AlarmsPage
from ui.commands import Commands
from ui.counters import Counters, LedgerLine
from ui.engineer_page import EngineerPage
from ui.feed import KEPT_NOT_PASSED, STALE_S, Feed
from ui.footer import Footer
from ui.header import Header
from ui.history import History, RecordedPart
from ui.live_view import LiveView
from ui.page import Page
from ui.panel import Panel
from ui.pause_page import PausePage
from ui.picture import Picture
from ui.reject_card import NotPassed
from ui.reject_strip import RejectStrip
from ui.report_page import ReportPage
from ui.review_page import ReviewPage
from ui.trend import Trend
from ui.verdict_panel import VerdictPanel

COLUMN_FROM_RATIO = 1.7  # width / height: from here on the last rejects stand beside the picture
_TICK_MS = 200
_SCREEN_ALARM = "screen:"  # alarms the screen raises itself; acknowledging them is its own affair


class MainWindow(QWidget):
    """The operator's screen. `begin` starts the threads of feed, commands and history; closing joins them."""

    def __init__(
        self, station: str, config_path: Path, feed: Feed, commands: Commands, history: History
    ) -> None:
        super().__init__()
        self.setWindowTitle(f"{station} - inspection")
        self.setAccessibleName("Inspection screen")
        self.setMinimumSize(960, 540)
        self.setAutoFillBackground(True)
        palette = self.palette()
        palette.setColor(QPalette.ColorRole.Window, theme.BACKGROUND)
        self.setPalette(palette)
        self._feed, self._commands, self._history = feed, commands, history
        self._status: StatusMessage | None = None
        self._screen_alarms: dict[str, Alarm] = {}
        self._page_name = ""

        self.header = Header(self, station)
        self.alarm_strip = AlarmStrip(self)
        self.live = LiveView(self, feed.address)
        self.rejects = RejectStrip(self)
        self.ledger = LedgerLine(self)
        self.verdict = VerdictPanel(self)
        self.counters = Counters(self)
        self.trend = Trend(self)
        self.footer = Footer(self)
        self.pause_page = PausePage(self)
        self.review_page = ReviewPage(self)
        self.alarms_page = AlarmsPage(self)
        self.report_page = ReportPage(self, config_path)
        self.engineer_page = EngineerPage(self, feed.address, str(config_path), str(history.database_path))
        self.pages: dict[str, Page] = {
            "pause": self.pause_page,
            "review": self.review_page,
            "alarms": self.alarms_page,
            "report": self.report_page,
            "engineer": self.engineer_page,
        }
        self._connect()
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setFocus()  # not the first button: no ring before someone tabs
        self.show_page("")
        self._show_unknown()
        self._tick = QTimer(self)
        self._tick.timeout.connect(self._check_signal)
        self._tick.start(_TICK_MS)

    def begin(self) -> None:
        """Start the threads and ask the record for what was before."""
        self._feed.start()
        self._commands.start()
        self._history.start()
        self._history.ask_last(KEPT_NOT_PASSED)

    def closeEvent(self, event: QCloseEvent) -> None:
        """Gone at once for the eye; then every thread is joined."""
        self.hide()
        self._tick.stop()
        self.report_page.stop()
        self._feed.close()
        self._commands.close()
        self._history.close()
        event.accept()

    def show_page(self, name: str) -> None:
        """Open a page over the picture; the same name again, or an empty one, goes back to the line."""
        self._page_name = "" if name == self._page_name else name
        for page_name, page in self.pages.items():
            page.setVisible(page_name == self._page_name)
        on_line = not self._page_name
        self.live.setVisible(on_line)
        self.rejects.setVisible(on_line)
        self.footer.show_page(self._page_name)
        if self._page_name == "review":
            self.review_page.show_message("Reading the record ...")
            self._history.ask_shift(self._status.shift_started_unix_ns if self._status else 0)
        elif self._page_name == "report":
            self.report_page.write()

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Lay everything out for the new size."""
        self._lay_out()

    # --- who tells whom

    def _connect(self) -> None:
        self._feed.arrived.connect(self._take_mail)
        self._commands.failed.connect(self._command_failed)
        self._commands.done.connect(self._command_done)
        self._history.last_found.connect(self._last_found)
        self._history.shift_found.connect(self.review_page.show_parts)
        self._history.picture_found.connect(self._picture_found)
        self._history.failed.connect(lambda _what, why: self.review_page.show_message(why))
        self.alarm_strip.acknowledged.connect(self._acknowledge)
        self.alarm_strip.opened.connect(self._open_alarms)
        self.alarms_page.acknowledged.connect(self._acknowledge)
        self.footer.start_wanted.connect(lambda: self._send("start"))
        self.footer.pause_wanted.connect(lambda: self.show_page("pause"))
        self.footer.heatmap_wanted.connect(self.live.show_heatmap)
        self.footer.heatmap_wanted.connect(self.review_page.view.show_heatmap)
        self.footer.page_wanted.connect(self.show_page)
        self.pause_page.chosen.connect(self._pause)
        self.rejects.chosen.connect(self._freeze)
        self.rejects.picture_missing.connect(lambda uid: self._history.ask_picture_of(uid, self._box_px()))
        self.review_page.picture_wanted.connect(lambda part: self._history.ask_picture(part, self._box_px()))
        self.live.thawed.connect(self._thaw)
        for page in self.pages.values():
            page.closed.connect(lambda: self.show_page(""))

    def _open_alarms(self) -> None:
        if self._page_name != "alarms":
            self.show_page("alarms")

    def _take_mail(self) -> None:
        mail = self._feed.take()
        if mail.status is not None:
            self._status = mail.status
            self._show_status(mail.status)
        if self._status is None:
            return  # no signal: a late verdict is not the line's present
        if mail.picture is not None:
            self.live.show_live(mail.picture)
        if mail.verdict is not None:
            self.verdict.show_verdict(mail.verdict)
            self.live.show_verdict(mail.verdict)
            self.engineer_page.show_verdict(mail.verdict)
        self.rejects.add(mail.not_passed, mail.not_passed_pictures)

    def _show_status(self, status: StatusMessage) -> None:
        self.header.show_status(status)
        self.live.show_status(status, None, heard=True)
        self.verdict.show_status(status)
        self.counters.show_status(status)
        self.ledger.show_status(status)
        self.trend.show_status(status)
        self.engineer_page.show_status(status)
        self.footer.show_state(status.state)
        self._show_alarms()

    def _show_unknown(self) -> None:
        self._status = None
        self.header.show_status(None)
        self.live.show_status(None, self._feed.silent_s(), self._feed.heard)
        self.verdict.show_status(None)
        self.counters.show_status(None)
        self.ledger.show_status(None)
        self.trend.show_status(None)
        self.engineer_page.show_status(None)
        self.footer.show_state(None)
        self._show_alarms()

    def _show_alarms(self) -> None:
        alarms = [*self._screen_alarms.values(), *(self._status.alarms if self._status else ())]
        self.alarm_strip.show_alarms(alarms, known=self._status is not None)
        self.alarms_page.show_alarms(alarms)
        self.footer.show_alarm_count(sum(map(needs_attention, alarms)))

    def _check_signal(self) -> None:
        self.header.update()  # the clock
        silent_s = self._feed.silent_s()
        if self._status is None:
            self.live.show_status(None, silent_s, self._feed.heard)
        elif silent_s > STALE_S:
            self._show_unknown()

    # --- commands

    def _send(self, command: str, **arguments: str) -> None:
        self._commands.send(command, user=self._status.user if self._status else "", **arguments)

    def _pause(self, reason: str) -> None:
        self.show_page("")
        self._send("pause", reason=reason)

    def _acknowledge(self, key: str) -> None:
        if key in self._screen_alarms:
            del self._screen_alarms[key]
            self._show_alarms()
        else:
            self._send("acknowledge", key=key)

    def _command_failed(self, command: str, why: str) -> None:
        """A command that did nothing is an alarm of the screen's own, so that it cannot be overlooked."""
        key = _SCREEN_ALARM + command
        title = f"{command} not done: {why}"
        self._screen_alarms[key] = Alarm(
            key, "medium", title, "check the station, then try again", time.time_ns()
        )
        self._show_alarms()

    def _command_done(self, command: str) -> None:
        if self._screen_alarms.pop(_SCREEN_ALARM + command, None):
            self._show_alarms()

    # --- rejects

    def _last_found(self, parts: list[RecordedPart]) -> None:
        self.rejects.add_recorded(parts)
        for part in parts:
            self._history.ask_picture(part, self._box_px())

    def _picture_found(self, uid: str, picture: Picture) -> None:
        self.rejects.set_picture(uid, picture)
        self.review_page.set_picture(uid, picture)

    def _freeze(self, part: NotPassed) -> None:
        if part.picture is None:
            self._history.ask_picture_of(part.uid, self._box_px())
            return
        self.rejects.hold(part)
        self.live.freeze(part.picture, part.note)

    def _thaw(self) -> None:
        self.rejects.hold(None)
        self.live.thaw()

    # --- where everything is

    def _box_px(self) -> tuple[int, int]:
        return self.live.width(), self.live.height()

    def _lay_out(self) -> None:
        width, height = self.width(), self.height()
        k = theme.scale(width, height)
        gap = round(theme.GAP_PX * k)
        inner_px = width - 2 * gap
        header = QRect(gap, round(4 * k), inner_px, round(theme.HEADER_PX * k))
        alarm = QRect(gap, header.bottom() + 1 + round(4 * k), inner_px, round(theme.ALARM_PX * k))
        footer_px = round(theme.FOOTER_PX * k)
        footer = QRect(gap, height - gap - footer_px, inner_px, footer_px)
        top = alarm.bottom() + 1 + gap
        body_px = footer.top() - gap - top
        right_px = round(theme.RIGHT_PX * k)
        left = QRect(gap, top, inner_px - right_px - gap, body_px)
        self.header.setGeometry(header)
        self.alarm_strip.setGeometry(alarm)
        self.footer.setGeometry(footer)
        self._lay_out_right(QRect(width - gap - right_px, top, right_px, body_px), k, gap)
        self._lay_out_left(left, k, gap, column=width / height >= COLUMN_FROM_RATIO)
        panels: tuple[Panel, ...] = (
            self.header,
            self.alarm_strip,
            self.verdict,
            self.counters,
            self.trend,
            self.ledger,
            self.live,
        )
        self.footer.rescale(k)
        for panel in (*panels, *self.pages.values()):
            panel.rescale(k)
        self._feed.fit_pictures(*self._box_px())

    def _lay_out_right(self, column: QRect, k: float, gap: int) -> None:
        """On taller screens the trend grows first, then the verdict."""
        counters_px = round(300 * k)
        spare_px = column.height() - counters_px - round(312 * k) - 2 * gap
        trend_px = min(max(spare_px, round(180 * k)), round(260 * k))
        verdict_px = column.height() - counters_px - trend_px - 2 * gap
        self.verdict.setGeometry(column.x(), column.y(), column.width(), verdict_px)
        self.counters.setGeometry(column.x(), column.y() + verdict_px + gap, column.width(), counters_px)
        self.trend.setGeometry(column.x(), column.bottom() - trend_px + 1, column.width(), trend_px)

    def _lay_out_left(self, left: QRect, k: float, gap: int, column: bool) -> None:
        ledger_px = round(theme.LEDGER_PX * k)
        self.ledger.setGeometry(left.x(), left.bottom() - ledger_px + 1, left.width(), ledger_px)
        stage = QRect(left.x(), left.y(), left.width(), left.height() - ledger_px - gap)
        for page in self.pages.values():
            page.setGeometry(stage)
        if column:
            strip_px = round(236 * k)
            self.live.setGeometry(stage.x(), stage.y(), stage.width() - strip_px - gap, stage.height())
            self.rejects.setGeometry(stage.right() - strip_px + 1, stage.y(), strip_px, stage.height())
        else:
            strip_px = round(220 * k)
            self.live.setGeometry(stage.x(), stage.y(), stage.width(), stage.height() - strip_px - gap)
            self.rejects.setGeometry(stage.x(), stage.bottom() - strip_px + 1, stage.width(), strip_px)
        self.rejects.lay_out(k, column)
