"""Facts for the engineer, to read only: model, limits, timing against takt, devices, places."""

import time

from PySide6.QtCore import QRect, QRectF
from PySide6.QtGui import QColor
from PySide6.QtWidgets import QWidget

from station.types import StatusMessage, VerdictMessage
from ui import theme, words
from ui.canvas import RIGHT, Canvas
from ui.page import Page


class EngineerPage(Page):
    """Two columns: what runs, and how fast."""

    def __init__(self, parent: QWidget, address: str, config_path: str, database_path: str) -> None:
        super().__init__(parent, "Engineer", "facts to read")
        self._places = (("Engine at", address), ("Configuration", config_path), ("Record", database_path))
        self._status: StatusMessage | None = None
        self._verdict: VerdictMessage | None = None
        self._content = QRect()

    def show_status(self, status: StatusMessage | None) -> None:
        """None = unknown."""
        self._status = status
        self._describe()

    def show_verdict(self, verdict: VerdictMessage) -> None:
        """The limits in force come with every verdict."""
        self._verdict = verdict
        self._describe()

    def lay_out(self, content: QRect) -> None:
        """All of it is painted."""
        self._content = content

    def facts(self) -> list[tuple[str, str]]:
        """Label and value, top to bottom."""
        status, verdict = self._status, self._verdict
        rows: list[tuple[str, str]] = []
        if status is not None:
            lag_s = abs(time.time() - status.sent_unix_ns / 1e9)
            rows += [
                ("State", " ".join(filter(None, (status.state, status.state_reason)))),
                ("Model", status.model or words.UNKNOWN),
                ("Recipe / lot", f"{status.recipe} / {status.lot or words.UNKNOWN}"),
                (
                    "Shift since",
                    f"{status.shift}, {words.clock(status.shift_started_unix_ns, seconds=False)}",
                ),
                ("Parts per second", f"{status.parts_per_s:.2f} (takt {status.takt_ms:g} ms)"),
                ("Status age", words.age(lag_s)),
            ]
        if verdict is not None:
            limits = f"{words.score(verdict.limit_recheck)} / {words.score(verdict.limit_reject)}"
            rows.insert(2, ("Recheck / reject limit", limits))
        return [*rows, *self._places]

    def _describe(self) -> None:
        self.say("; ".join(f"{label}: {value}" for label, value in self.facts()))

    def paint(self, canvas: Canvas, area: QRectF) -> None:
        """Facts over the whole width, then timing left and devices right."""
        super().paint(canvas, area)
        k = self.k
        content = QRectF(self._content)
        y = content.top()
        row_px = 40 * k
        for label, value in self.facts():
            canvas.text(QRectF(content.left(), y, 280 * k, row_px), label, 22 * k, theme.DIM)
            room = QRectF(content.left() + 290 * k, y, content.width() - 290 * k, row_px)
            canvas.text(room, value, 22 * k, shrink_to_px=16 * k)
            y += row_px
        if self._status is None:
            return
        y += 16 * k
        half = (content.width() - 24 * k) / 2
        self._timing(canvas, QRectF(content.left(), y, half, content.bottom() - y), self._status)
        self._devices(
            canvas, QRectF(content.left() + half + 24 * k, y, half, content.bottom() - y), self._status
        )

    def _timing(self, canvas: Canvas, box: QRectF, status: StatusMessage) -> None:
        """Bars of trigger-to-verdict latency; the takt is the right end of each."""
        k = self.k
        canvas.text(
            QRectF(box.left(), box.top(), box.width(), 34 * k),
            "Trigger to verdict, against takt",
            22 * k,
            bold=True,
        )
        for row, name in enumerate(("p50", "p95", "p99")):
            latency_ms = status.latency_ms.get(name)
            line = QRectF(box.left(), box.top() + (42 + 46 * row) * k, box.width(), 38 * k)
            canvas.text(QRectF(line.left(), line.top(), 60 * k, line.height()), name, 22 * k, theme.DIM)
            text = words.UNKNOWN if latency_ms is None else f"{latency_ms:.0f} ms"
            canvas.text(
                QRectF(line.right() - 130 * k, line.top(), 130 * k, line.height()), text, 22 * k, align=RIGHT
            )
            bar = line.adjusted(66 * k, 10 * k, -140 * k, -10 * k)
            canvas.fillRect(bar, theme.WELL)
            if latency_ms is not None and status.takt_ms > 0:
                share = latency_ms / status.takt_ms
                colour: QColor = theme.WARN if share > 1 else theme.DIM
                canvas.fillRect(
                    QRectF(bar.left(), bar.top(), bar.width() * min(share, 1.0), bar.height()), colour
                )

    def _devices(self, canvas: Canvas, box: QRectF, status: StatusMessage) -> None:
        k = self.k
        canvas.text(QRectF(box.left(), box.top(), box.width(), 34 * k), "Devices", 22 * k, bold=True)
        for row, device in enumerate(status.devices):
            line = QRectF(box.left(), box.top() + (42 + 36 * row) * k, box.width(), 34 * k)
            if line.bottom() > box.bottom():
                break
            colour = theme.TEXT if device.state == "ok" else theme.WARN
            canvas.text(
                QRectF(line.left(), line.top(), 150 * k, line.height()), device.name, 22 * k, theme.DIM
            )
            text = f"{device.state}  {device.text}" if device.text else device.state
            canvas.text(line.adjusted(158 * k, 0, 0, 0), text, 22 * k, colour, shrink_to_px=16 * k)
