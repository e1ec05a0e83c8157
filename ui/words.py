"""How moments, scores and verdicts are written on the screen."""

from datetime import datetime

from station.types import Verdict, VerdictMessage

WORDS: dict[Verdict, str] = {
    Verdict.PASS: "PASS",
    Verdict.RECHECK: "RECHECK",
    Verdict.REJECT: "REJECT",
    Verdict.NOT_INSPECTED: "NOT INSPECTED",
}
UNKNOWN = "–"


def clock(unix_ns: int, seconds: bool = True) -> str:
    """Local time of day, HH:MM:SS or HH:MM."""
    moment = datetime.fromtimestamp(unix_ns / 1e9).astimezone()
    return moment.strftime("%H:%M:%S" if seconds else "%H:%M")


def score(value: float | None) -> str:
    """A raw score or limit with three significant figures, or a dash."""
    return UNKNOWN if value is None else f"{value:#.3g}".rstrip(".")


def age(seconds: float) -> str:
    """A span of time: 3.4 s, 2 min, 5 h."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h"


def why(message: VerdictMessage) -> str:
    """The line under the verdict: how far from the limit, or what went wrong."""
    if message.score is None or message.limit_reject <= 0:
        return message.reason
    share = message.score / message.limit_reject
    match message.verdict:
        case Verdict.PASS:
            banded = 0 < message.limit_recheck < message.limit_reject
            limit, name = (
                (message.limit_recheck, "recheck limit") if banded else (message.limit_reject, "limit")
            )
            return f"{max(0.0, 1 - message.score / limit):.0%} below the {name}".replace("%", "\u202f%")
        case Verdict.RECHECK:
            return f"{message.reason}, {share:.0%} of reject limit".replace("%", "\u202f%")
        case Verdict.REJECT:
            return f"{share:.2f} × the limit"
        case Verdict.NOT_INSPECTED:
            return message.reason
