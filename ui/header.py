"""The top line: where we are, what runs, how the devices are, who is on shift, and the time."""

from datetime import datetime

from PySide6.QtCore import QRectF
from PySide6.QtGui import QColor, QFontMetricsF
from PySide6.QtWidgets import QWidget

from station.types import DeviceStatus, StatusMessage, Verdict
from ui import theme
from ui.canvas import LEFT, RIGHT, Canvas
from ui.panel import Panel

_TEXT_PX = 20
_FACT_GAP_PX = 22
_MAX_FAULT_TEXT_PX = 240


class Header(Panel):
    """Station, recipe, lot, model | devices | shift, user, clock."""

    def __init__(self, parent: QWidget, station: str) -> None:
        super().__init__(parent, "Header", "station, recipe, lot, model, devices, shift, user and time")
        self._station = station
        self._status: StatusMessage | None = None
        self._devices: tuple[DeviceStatus, ...] = ()

    def show_status(self, status: StatusMessage | None) -> None:
        """None = no signal: devices become unknown, not good."""
        self._status = status
        if status is not None:
            self._devices = status.devices
        devices = ", ".join(
            f"{device.name} {device.state if status else 'unknown'}" for device in self._devices
        )
        self.setToolTip(
            "\n".join(f"{device.name}: {device.text}" for device in self._devices) if status else ""
        )
        self.say(f"devices: {devices or 'unknown'}")

    def paint(self, canvas: Canvas, area: QRectF) -> None:
        """From both ends inwards; what is in the middle gives way."""
        k, status = self.k, self._status
        canvas.fillRect(area, theme.BACKGROUND)
        left_px, right_px = area.left(), area.right()
        clock = datetime.now().astimezone().strftime("%H:%M:%S")
        right_px -= self._put_right(canvas, area, right_px, clock, 30, bold=True) + 26 * k
        people = "  ".join(filter(None, (f"Shift {status.shift}", status.user))) if status else ""
        right_px -= self._put_right(canvas, area, right_px, people, _TEXT_PX) + (22 * k if people else 0)
        for device in reversed(self._devices):
            right_px -= self._device(canvas, area, right_px, device) + 16 * k
        name = status.station if status else self._station
        box = QRectF(left_px, area.top(), min(380 * k, right_px - left_px), area.height())
        left_px += canvas.text(box, name.upper(), 30 * k, bold=True, shrink_to_px=22 * k) + 26 * k
        facts = (("Recipe", status.recipe), ("Lot", status.lot), ("Model", status.model)) if status else ()
        shown = [(label, value) for label, value in facts if value]
        for label, value, width_px in self._shared(shown, right_px - left_px):
            self._fact(canvas, QRectF(left_px, area.top(), width_px, area.height()), label, value)
            left_px += width_px + _FACT_GAP_PX * k

    def _shared(self, facts: list[tuple[str, str]], room_px: float) -> list[tuple[str, str, float]]:
        """Each fact with its width: what it wants, or, where that is too much, the widest cut alike."""
        metrics = QFontMetricsF(theme.font(_TEXT_PX * self.k))
        wanted = [metrics.horizontalAdvance(f"{label}  {value}") + 4 * self.k for label, value in facts]
        room_px -= _FACT_GAP_PX * self.k * len(facts)
        most_px = room_px
        for width_px, left in zip(sorted(wanted), range(len(wanted), 0, -1), strict=True):
            most_px = max(room_px / left, 0.0)
            if width_px > most_px:
                break
            room_px -= width_px
            most_px = width_px
        return [
            (label, value, min(width_px, most_px))
            for (label, value), width_px in zip(facts, wanted, strict=True)
        ]

    def _put_right(
        self, canvas: Canvas, area: QRectF, right_px: float, text: str, size_px: float, bold: bool = False
    ) -> float:
        box = QRectF(
            max(area.left(), right_px - 420 * self.k), area.top(), min(420 * self.k, right_px), area.height()
        )
        return canvas.text(box, text, size_px * self.k, align=RIGHT, bold=bold)

    def _fact(self, canvas: Canvas, box: QRectF, label: str, value: str) -> None:
        k = self.k
        used = canvas.text(box, label, _TEXT_PX * k, theme.DIM) + 8 * k
        canvas.text(box.adjusted(used, 0, 0, 0), value, _TEXT_PX * k)

    def _device(self, canvas: Canvas, area: QRectF, right_px: float, device: DeviceStatus) -> float:
        """A device that works is a grey tick and its name; one that does not is a plate saying why."""
        k = self.k
        state = device.state if self._status else "unknown"
        abnormal = state in ("fault", "warn")
        name = device.name[:1].upper() + device.name[1:]
        if abnormal:
            ground, ink = (theme.NG, theme.WHITE) if state == "fault" else (theme.WARN, theme.INK)
            text = f"{name}: {device.text}" if device.text else f"{name} {state}"
        else:
            ground, ink = theme.BACKGROUND, theme.DIM
            text = name if state == "ok" else f"{name} {'?' if state == 'unknown' else state}"
        font = theme.font(_TEXT_PX * k, bold=abnormal)
        text_px = min(_MAX_FAULT_TEXT_PX * k, QFontMetricsF(font).horizontalAdvance(text) + 2 * k)
        icon_px, pad_px = 22 * k, 8 * k if abnormal else 0.0
        width_px = icon_px + 7 * k + text_px + 2 * pad_px
        plate = QRectF(right_px - width_px, area.top() + 4 * k, width_px, area.height() - 8 * k)
        if abnormal:
            canvas.panel(plate, ground, 4 * k)
        icon = QRectF(plate.left() + pad_px, plate.center().y() - icon_px / 2, icon_px, icon_px)
        self._icon(canvas, icon, state, ink)
        canvas.text(
            QRectF(icon.right() + 7 * k, area.top(), text_px, area.height()),
            text,
            _TEXT_PX * k,
            ink,
            LEFT,
            abnormal,
        )
        return width_px

    @staticmethod
    def _icon(canvas: Canvas, box: QRectF, state: str, colour: QColor) -> None:
        match state:
            case "ok":
                canvas.verdict_shape(Verdict.PASS, box, colour)
            case "fault":
                canvas.verdict_shape(Verdict.REJECT, box, colour)
            case "warn":
                canvas.verdict_shape(Verdict.RECHECK, box, colour)
            case _:
                canvas.ring_shape(box, colour)
