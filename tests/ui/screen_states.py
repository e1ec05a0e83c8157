"""Every state the screen can be in, put before it without a network."""

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from screen_publisher import make_alarm, make_map, make_preview, make_status, make_verdict

from station.types import (
    DeviceStatus,
    EngineState,
    LedgerSnapshot,
    Preview,
    StatusMessage,
    Verdict,
    VerdictMessage,
)
from ui.feed import Mail
from ui.history import RecordedPart
from ui.main_window import MainWindow
from ui.picture import from_preview

TWO_REGIONS = make_map((0.62, 0.55, 0.06, 190), (0.35, 0.38, 0.035, 150))
LONG = "A text that somebody wrote without thinking of the width of a screen, and which goes on and on"


def deliver(
    window: MainWindow,
    status: StatusMessage | None = None,
    verdict: VerdictMessage | None = None,
    preview: Preview | None = None,
) -> None:
    """Hand mail to the window as its feed would."""
    mail = Mail(status=status, verdict=verdict)
    if verdict is not None and verdict.verdict is not Verdict.PASS:
        mail.not_passed.append(verdict)
    if preview is not None:
        mail.picture = from_preview(preview, (400, 300))
        if preview.verdict is not Verdict.PASS:
            mail.not_passed_pictures.append(mail.picture)
    feed = window._feed
    with feed._lock:
        feed._mail = mail
        feed._status_s = time.monotonic()
    window._take_mail()


def recorded(seq: int, verdict: Verdict = Verdict.REJECT) -> RecordedPart:
    score = None if verdict is Verdict.NOT_INSPECTED else 0.9
    at_ns = 1_764_000_000_000_000_000 + seq * 10**9
    return RecordedPart(
        f"r{seq}",
        seq,
        "CAM 1",
        verdict,
        "above reject limit",
        score,
        0.5,
        0.62,
        41.0,
        at_ns,
        "L",
        "R",
        "m",
        "a",
        "b",
    )


def show_pass(window: MainWindow) -> None:
    for seq in range(4700, 4705):
        rejected = make_preview(seq, Verdict.REJECT, make_map((0.5, 0.4, 0.05, 180)))
        deliver(window, make_status(), make_verdict(seq, Verdict.REJECT), rejected)
    deliver(window, make_status(), make_verdict(4812), make_preview(4812))


def show_reject(window: MainWindow) -> None:
    status = make_status(
        alarms=(make_alarm(), make_alarm(key="disk", priority="low", title="Disk 91 % full"))
    )
    deliver(
        window, status, make_verdict(4813, Verdict.REJECT), make_preview(4813, Verdict.REJECT, TWO_REGIONS)
    )


def show_recheck(window: MainWindow) -> None:
    deliver(window, make_status(), make_verdict(4814, Verdict.RECHECK), make_preview(4814, Verdict.RECHECK))


def show_not_inspected(window: MainWindow) -> None:
    show_pass(window)
    deliver(window, make_status(), make_verdict(4815, Verdict.NOT_INSPECTED))


def show_paused(window: MainWindow) -> None:
    show_pass(window)
    alarms = (make_alarm(acknowledged=True),)
    deliver(window, make_status(state=EngineState.PAUSED, state_reason="changeover", alarms=alarms))


def show_fault(window: MainWindow) -> None:
    show_pass(window)
    devices = (
        DeviceStatus("camera", "fault", "no frames since 14:29:51"),
        DeviceStatus("worker", "off", ""),
        DeviceStatus("outputs", "ok", ""),
        DeviceStatus("record", "warn", "disk 91 % full"),
    )
    alarm = make_alarm(key="device-camera", priority="high", title="CAMERA FAULT: no frames since 14:29:51")
    reason = "camera not ready; parts are rejected"
    status = make_status(
        state=EngineState.FAULT, state_reason=reason, devices=devices, alarms=(alarm, make_alarm())
    )
    deliver(window, status, make_verdict(4816, Verdict.NOT_INSPECTED, reason="camera lost"))


def show_silence(window: MainWindow) -> None:
    show_pass(window)
    window._feed._status_s = time.monotonic() - 3.4
    window._check_signal()


def show_start(window: MainWindow) -> None:
    window._check_signal()


def show_ready(window: MainWindow) -> None:
    nothing = make_status(
        state=EngineState.READY,
        ledger=LedgerSnapshot(),
        shift_counts={},
        trend=(),
        latency_ms={},
        parts_per_s=0.0,
    )
    deliver(window, nothing)


def show_long_texts(window: MainWindow) -> None:
    devices = tuple(DeviceStatus(f"device {index}", "warn", LONG) for index in range(4))
    ledger = LedgerSnapshot(1234567, 1100000, 20000, 80000, 34566, 1, 1234566)
    counts = {"PASS": 1100000, "RECHECK": 20000, "REJECT": 80000, "NOT_INSPECTED": 34566}
    status = make_status(
        station=LONG[:40],
        recipe=LONG[:60],
        lot=LONG[:60],
        model=LONG[:60],
        user=LONG[:60],
        state=EngineState.PAUSED,
        state_reason=LONG,
        devices=devices,
        alarms=(
            make_alarm(title=LONG, action=LONG),
            make_alarm(key="b", title=f"{LONG}: {LONG}", action=LONG),
        ),
        ledger=ledger,
        shift_counts=counts,
        reject_streak=12345,
        latency_ms={"p50": 123456.0, "p95": 1234567.0, "p99": 12345678.0},
    )
    deliver(window, status)
    verdict = make_verdict(1234567, Verdict.REJECT, score=123.456, reason=LONG, latency_ms=123456.0)
    deliver(
        window,
        replace(status, state=EngineState.RUNNING, state_reason=""),
        verdict,
        make_preview(1234567, Verdict.REJECT),
    )


def show_frozen(window: MainWindow) -> None:
    show_pass(window)
    window.rejects.cards[1].click()


def show_review(window: MainWindow) -> None:
    show_pass(window)
    window.show_page("review")
    window.review_page.show_parts([recorded(seq, list(Verdict)[1 + seq % 3]) for seq in range(40, 20, -1)])
    window.review_page.set_picture(
        "r40", from_preview(make_preview(40, Verdict.REJECT, TWO_REGIONS), (300, 300))
    )


def show_alarms(window: MainWindow) -> None:
    alarms = tuple(
        make_alarm(key=str(index), title=LONG, action=LONG, acknowledged=index % 2 == 1) for index in range(9)
    )
    deliver(window, make_status(alarms=alarms))
    window.show_page("alarms")


def show_pause_page(window: MainWindow) -> None:
    show_pass(window)
    window.footer.line.click()


def show_engineer(window: MainWindow) -> None:
    show_reject(window)
    window.footer.engineer.click()


STATES: dict[str, Callable[[MainWindow], None]] = {
    name.removeprefix("show_"): function
    for name, function in list(globals().items())
    if name.startswith("show_")
}
EMPTY_MAP = np.empty((0, 0), np.uint8)
