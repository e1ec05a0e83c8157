"""The report's four charts as inline SVG, drawn by hand.

Grey is normal; colour is kept for what did not pass, and never stands alone: numbers and words say the same.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, tzinfo
from html import escape
from math import ceil, floor, log10

from station.report.build import NS_PER_S, Bucket
from station.report.statistics import PChart
from station.types import Verdict

INK, DIM, GRID = "#24282c", "#6a7279", "#dfe3e6"
COLOURS = {
    Verdict.PASS: "#b4bcc3",
    Verdict.RECHECK: "#e0ac00",
    Verdict.REJECT: "#b83a00",
    Verdict.NOT_INSPECTED: "#3d444a",
}
WIDTH, HEIGHT = 420, 206
_FONTS = "Liberation Sans, Helvetica Neue, Arial, DejaVu Sans Condensed, DejaVu Sans, sans-serif"
_LEFT, _RIGHT, _TOP, _BOTTOM = 38, 8, 22, 22
_PLOT_WIDTH, _PLOT_HEIGHT = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
_BASE = HEIGHT - _BOTTOM
_HISTOGRAM_BINS = 40


def stacked_bars(buckets: Sequence[Bucket], bucket_s: int, tz: tzinfo | None) -> str:
    """Parts per interval; what did not pass sits on top, its number above."""
    totals = [sum(bucket.counts.values()) for bucket in buckets]
    top, ticks = _scale(1.08 * max(totals, default=0))  # room for the numbers
    marks = list(_grid(ticks, top, "{:g}"))
    step = _PLOT_WIDTH / max(1, len(buckets))
    every = ceil(len(buckets) / (8 if bucket_s >= 60 else 5))  # with seconds, the times are longer
    for number, (bucket, total) in enumerate(zip(buckets, totals, strict=True)):
        x, y = _LEFT + step * number + step * 0.12, float(_BASE)
        for verdict, colour in COLOURS.items():
            parts = bucket.counts[verdict]
            height = max(_PLOT_HEIGHT * parts / top, 1.2) if parts else 0.0
            y -= height
            if parts:
                marks.append(_box(x, y, step * 0.76, height, colour))
        if bad := total - bucket.counts[Verdict.PASS]:
            marks.append(_text(x + step * 0.38, y - 3, str(bad), "middle", 9))
        if number % every == 0:
            marks.append(
                _text(
                    _LEFT + step * number, HEIGHT - 8, _clock(bucket.started_unix_ns, tz, bucket_s), "middle"
                )
            )
    marks.append(_legend())
    if not any(totals):
        marks.append(_nothing("no parts"))
    return _svg(marks, f"Parts per interval: {sum(totals)} parts in {len(buckets)} intervals")


def pareto(reasons: Sequence[tuple[str, str, int]], most: int = 6) -> str:
    """What did not pass, most frequent first, with the cumulative share."""
    if not reasons:
        return _svg([_nothing("every part passed, or there was none")], "Reasons: none")
    shown = list(reasons[:most])
    if rest := sum(parts for _, _, parts in reasons[most:]):
        shown.append(("", f"{len(reasons) - most} other reasons", rest))
    total = sum(parts for _, _, parts in shown)
    label_width, number_width = 128, 84
    pitch = min(26.0, (HEIGHT - 16) / len(shown))
    marks, cumulated = [], 0
    for number, (verdict, reason, parts) in enumerate(shown):
        cumulated += parts
        y = 10 + pitch * number
        width = max(1.0, (WIDTH - label_width - number_width) * parts / shown[0][2])
        colour = COLOURS[Verdict(verdict)] if verdict else DIM
        marks += [
            _text(label_width - 6, y + pitch * 0.6, reason, "end", 11, INK),
            _box(
                label_width,
                y + pitch * 0.14,
                min(width, WIDTH - label_width - number_width),
                pitch * 0.62,
                colour,
            ),
            _text(WIDTH - number_width + 38, y + pitch * 0.6, _number(parts), "end", 11, INK),
            _text(WIDTH - 2, y + pitch * 0.6, f"{100 * cumulated / total:.0f} %", "end", 10),
        ]
    return _svg(marks, "Reasons: " + ", ".join(f"{reason} {parts}" for _, reason, parts in shown))


def control_chart(chart: PChart, tz: tzinfo | None) -> str:
    """The p-chart; a point outside its limits is a full diamond, one in a run a hollow one."""
    if not chart.subgroups:
        return _svg([_nothing("too few parts: at least 40 are needed")], "p-chart: too few parts")
    highest = max(max(group.share, group.upper) for group in chart.subgroups)
    top, ticks = _scale(100 * highest)
    marks = list(_grid(ticks, top, "{:g} %"))
    step = _PLOT_WIDTH / len(chart.subgroups)

    def y_of(share: float) -> float:
        return _BASE - _PLOT_HEIGHT * 100 * share / top

    points = []
    for number, group in enumerate(chart.subgroups):
        x = _LEFT + step * number
        lines = (y_of(group.lower), y_of(group.upper))
        marks.extend(_line(x, y, x + step, y, DIM, "3 2") for y in lines)
        points.append((x + step / 2, y_of(group.share)))
    marks.append(_line(_LEFT, y_of(chart.centre), WIDTH - _RIGHT, y_of(chart.centre), DIM, ""))
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    marks.append(f'<polyline points="{path}" fill="none" stroke="{INK}" stroke-width="1.2"/>')
    for (x, y), group in zip(points, chart.subgroups, strict=True):
        if group.signal:
            fill, red = (
                COLOURS[Verdict.REJECT] if group.signal == "limit" else "#fff",
                COLOURS[Verdict.REJECT],
            )
            corners = f"{x:.1f},{y - 5:.1f} {x + 5:.1f},{y:.1f} {x:.1f},{y + 5:.1f} {x - 5:.1f},{y:.1f}"
            marks.append(f'<polygon points="{corners}" fill="{fill}" stroke="{red}"/>')
        else:
            marks.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.2" fill="{INK}"/>')
    span_s = (chart.subgroups[-1].started_unix_ns - chart.subgroups[0].started_unix_ns) / NS_PER_S
    interval_s = span_s / len(points)
    for number in range(0, len(points), ceil(len(points) / 6)):
        started = chart.subgroups[number].started_unix_ns
        marks.append(_text(points[number][0], HEIGHT - 8, _clock(started, tz, interval_s), "middle"))
    return _svg(marks, "p-chart of parts not passed: " + control_caption(chart))


def control_caption(chart: PChart) -> str:
    """The p-chart in words."""
    if not chart.subgroups:
        return "p-chart"
    outside = sum(group.signal == "limit" for group in chart.subgroups)
    in_runs = sum(group.signal == "run" for group in chart.subgroups)
    signals = [f"{outside} outside limits"] * bool(outside) + [f"{in_runs} in a run"] * bool(in_runs)
    size = f"{len(chart.subgroups)} × {max(group.parts for group in chart.subgroups)} parts"
    return f"{size}, centre {100 * chart.centre:.2g} %: {', '.join(signals) or 'in control'}"


def latency_histogram(latencies_ms: Sequence[float], takt_ms: float) -> str:
    """Trigger to verdict, up to a little over p99.5; takt as a line, or as words where it lies far to the
    right."""
    if not latencies_ms:
        return _svg([_nothing("no inspected part")], "Latency: no inspected part")
    cut = latencies_ms[ceil(0.995 * len(latencies_ms)) - 1]
    takt_shown = takt_ms <= 2.5 * cut
    right, x_ticks = _scale(max(cut * 1.05, takt_ms * 1.05 if takt_shown else 0.0, 1e-3))
    bins = [0] * _HISTOGRAM_BINS
    for latency in latencies_ms:
        if latency < right:
            bins[int(latency / right * _HISTOGRAM_BINS)] += 1
    top, ticks = _scale(max(bins, default=0))
    marks = list(_grid(ticks, top, "{:g}"))
    step = _PLOT_WIDTH / _HISTOGRAM_BINS
    for number, parts in enumerate(bins):
        if parts:
            height = max(1.0, _PLOT_HEIGHT * parts / top)
            late = right * number / _HISTOGRAM_BINS >= takt_ms
            colour = COLOURS[Verdict.REJECT if late else Verdict.PASS]
            marks.append(_box(_LEFT + step * number + 0.4, _BASE - height, step - 0.8, height, colour))
    marks.extend(
        _text(_LEFT + _PLOT_WIDTH * tick / right, HEIGHT - 8, f"{round(tick, 9):g}", "middle")
        for tick in x_ticks
    )
    marks.append(_text(WIDTH - _RIGHT, _BASE - 4, "ms", "end"))
    beyond = sum(latency >= right for latency in latencies_ms)
    if takt_shown:
        x = _LEFT + _PLOT_WIDTH * takt_ms / right
        marks += [_line(x, _TOP, x, _BASE, INK, ""), _text(x - 3, 12, f"takt {takt_ms:g} ms", "end", 10, INK)]
    else:
        marks.append(_text(WIDTH - _RIGHT, 12, f"takt {takt_ms:g} ms lies far to the right →", "end", 10))
    if beyond:
        marks.append(_text(WIDTH - _RIGHT, 26, f"{_number(beyond)} beyond this chart", "end", 9))
    return _svg(marks, f"Latency of {len(latencies_ms)} parts in milliseconds")


def _scale(highest: float) -> tuple[float, list[float]]:
    """A round top at or above `highest`, and three to five round ticks up to it."""
    if highest <= 0:
        return 1.0, [0.0, 1.0]
    magnitude = 10 ** floor(log10(highest / 4))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude * 5 >= highest)
    count = ceil(highest / step - 1e-9)
    return step * count, [step * number for number in range(count + 1)]


def _grid(ticks: Sequence[float], top: float, form: str) -> Iterator[str]:
    for tick in ticks:
        y = _BASE - _PLOT_HEIGHT * tick / top
        yield _line(_LEFT, y, WIDTH - _RIGHT, y, GRID if tick else DIM, "")
        yield _text(_LEFT - 4, y + 3.5, form.format(round(tick, 9)), "end")


def _legend() -> str:
    marks, x = [], float(_LEFT)
    for verdict, colour in COLOURS.items():
        word = verdict.replace("_", " ").lower()
        marks += [_box(x, 5, 8, 8, colour), _text(x + 11, 12.5, word, "start")]
        x += 24 + 5.6 * len(word)
    return "".join(marks)


def _clock(unix_ns: int, tz: tzinfo | None, interval_s: float) -> str:
    form = "%d %b" if interval_s >= 86_400 else "%H:%M" if interval_s >= 60 else "%H:%M:%S"
    return f"{datetime.fromtimestamp(unix_ns // NS_PER_S, tz):{form}}"


def _number(value: int) -> str:
    return f"{value:,}".replace(",", " ")  # narrow no-break space


def _nothing(words: str) -> str:
    return _text(WIDTH / 2, HEIGHT / 2, words, "middle", 12)


def _text(x: float, y: float, words: str, anchor: str, size: float = 10, colour: str = DIM) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size:g}" fill="{colour}">'
        f"{escape(words)}</text>"
    )


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, dashes: str) -> str:
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" '
        f'stroke-width="0.8"{dashed}/>'
    )


def _box(x: float, y: float, width: float, height: float, colour: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"/>'


def _svg(marks: Sequence[str], title: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'font-family="{_FONTS}">'
        f"<title>{escape(title)}</title>{''.join(marks)}</svg>"
    )
