"""Which alarm comes first, and how one looks (ISA-18.2): its priority as colour, shape and word."""

from collections.abc import Iterable

from PySide6.QtCore import QRectF
from PySide6.QtGui import QColor

from station.types import Alarm, Verdict
from ui import theme
from ui.canvas import Canvas

_RANK = {"high": 0, "medium": 1, "low": 2}


def in_order(alarms: Iterable[Alarm]) -> tuple[Alarm, ...]:
    """Unacknowledged before acknowledged, there before gone, then by priority, then the newest first."""
    return tuple(
        sorted(
            alarms,
            key=lambda alarm: (
                not needs_attention(alarm),
                alarm.acknowledged,
                not alarm.active,
                _RANK.get(alarm.priority, 0),
                -alarm.raised_unix_ns,
                alarm.key,
            ),
        )
    )


def needs_attention(alarm: Alarm) -> bool:
    """Whether it belongs in the strip: still there, or gone but never acknowledged."""
    return alarm.active or not alarm.acknowledged


def condition(alarm: Alarm) -> str:
    """Where the alarm is in its life, in words."""
    where = "active" if alarm.active else "cleared"
    return f"{where}, {'acknowledged' if alarm.acknowledged else 'not acknowledged'}"


def colours(alarm: Alarm) -> tuple[QColor, QColor]:
    """Ground and text of an alarm that wants attention."""
    return theme.PRIORITY_COLOURS.get(alarm.priority, theme.PRIORITY_COLOURS["high"])


def paint_priority(canvas: Canvas, alarm: Alarm, box: QRectF, colour: QColor) -> None:
    """Octagon for high, triangle for medium, diamond for low."""
    match alarm.priority:
        case "medium":
            canvas.verdict_shape(Verdict.RECHECK, box, colour)
        case "low":
            canvas.warning_shape(box, colour)
        case _:
            canvas.verdict_shape(Verdict.REJECT, box, colour)
