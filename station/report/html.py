"""A `ShiftReport` as one self-contained HTML page: no script, no file beside it."""

from base64 import b64encode
from datetime import datetime
from importlib.resources import files

import segno
from jinja2 import Environment, StrictUndefined, select_autoescape
from markupsafe import Markup

from station.report import charts
from station.report.build import NS_PER_S, ShiftReport
from station.types import Verdict

_INTERVALS = {60: "minute", 3600: "hour", 86_400: "day"}
_REJECTS_ON_FIRST_PAGE = 8
_ROWS_ON_FIRST_PAGE = 5  # of stops, and of alarms


def render_html(report: ShiftReport) -> str:
    """The page, as text."""
    facts = report.facts

    def clock(unix_ns: int, form: str = "%H:%M:%S") -> str:
        return f"{datetime.fromtimestamp(unix_ns // NS_PER_S, facts.tz):{form}}"

    environment = Environment(
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "clock": clock,
        "day": lambda unix_ns: clock(unix_ns, "%a %d %b %Y %H:%M"),
        "number": lambda value: f"{value:,}".replace(",", " "),
        "duration": duration,
        "jpeg": lambda data: f"data:image/jpeg;base64,{b64encode(data).decode()}",
    }
    source = files("station.report").joinpath("templates/shift.html.j2").read_text(encoding="utf-8")
    return environment.from_string(source).render(
        report=report,
        facts=facts,
        Verdict=Verdict,
        share={
            verdict: 100 * parts / report.rows if report.rows else 0
            for verdict, parts in report.counts.items()
        },
        interval=_INTERVALS.get(report.bucket_s) or duration(report.bucket_s * NS_PER_S),
        bars=Markup(charts.stacked_bars(report.buckets, report.bucket_s, facts.tz)),
        pareto=Markup(charts.pareto(report.reasons)),
        control_chart=Markup(charts.control_chart(report.p_chart, facts.tz)),
        control_caption=charts.control_caption(report.p_chart),
        histogram=Markup(charts.latency_histogram(report.latencies_ms, facts.takt_ms)),
        qr=Markup(segno.make(head_text(report), error="m").svg_inline(scale=1, border=0, omitsize=True)),
        rejects_first=_REJECTS_ON_FIRST_PAGE,
        rows_first=_ROWS_ON_FIRST_PAGE,
    )


def head_text(report: ShiftReport) -> str:
    """What the QR code says: whoever keeps it can prove later that the record was not cut or rewritten."""
    part, event = report.part_chain.head, report.event_chain.head
    return (
        f"varad-station {report.facts.station} {report.window.key} "
        f"part {part.row_id} {part.hash.hex()} event {event.row_id} {event.hash.hex()}"
    )


def duration(span_ns: int) -> str:
    """A span in its two largest units: "1 h 05 min", "12 min", "45 s"."""
    seconds = round(span_ns / NS_PER_S)
    if seconds == 0 < span_ns:
        return "< 1 s"
    if seconds < 60:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes} min" if seconds == 0 else f"{minutes} min {seconds:02} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h" if minutes == 0 else f"{hours} h {minutes:02} min"
