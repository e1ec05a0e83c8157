import math
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from station.report import charts
from station.report.build import Bucket
from station.report.html import duration
from station.report.statistics import bucket_s, escape_bound, p_chart
from station.report.stops import stops_in
from station.types import EngineState, Verdict

S = 1_000_000_000


@given(st.lists(st.booleans(), max_size=3000))
def test_the_subgroups_of_a_p_chart_hold_every_part_once(passed: list[bool]) -> None:
    chart = p_chart([(number * S, good) for number, good in enumerate(passed)])
    if len(passed) < 40:
        assert chart.subgroups == ()
        return
    assert sum(group.parts for group in chart.subgroups) == len(passed)
    assert 2 <= len(chart.subgroups) <= 25
    assert min(group.parts for group in chart.subgroups) >= 20
    bad = sum(group.share * group.parts for group in chart.subgroups)
    assert bad == pytest.approx(passed.count(False))
    assert chart.centre == pytest.approx(bad / len(passed))
    for group in chart.subgroups:
        assert 0 <= group.lower <= chart.centre <= group.upper <= 1
        assert (group.signal == "limit") == (not group.lower <= group.share <= group.upper)


def test_a_p_chart_signals_a_burst_and_a_run() -> None:
    steady = [number % 20 != 0 for number in range(1000)]
    assert {group.signal for group in p_chart(list(enumerate(steady))).subgroups} == {""}
    burst = [*steady, *[number % 3 != 0 for number in range(100)], *steady]
    assert "limit" in {group.signal for group in p_chart(list(enumerate(burst))).subgroups}
    drift = [number % 20 != 0 for number in range(1000)] + [number % 15 != 0 for number in range(1000)]
    signals = [group.signal for group in p_chart(list(enumerate(drift))).subgroups]
    assert signals[:7] == [""] * 7
    assert "run" in signals


@given(runs=st.integers(1, 2000), data=st.data())
def test_the_escape_bound_is_where_so_few_misses_become_unlikely(runs: int, data: st.DataObject) -> None:
    misses = data.draw(st.integers(0, min(runs, 20)))
    bound = escape_bound(runs, misses)
    assert bound is not None
    if misses == runs:
        assert bound == 1.0
        return
    at_most = sum(math.comb(runs, k) * bound**k * (1 - bound) ** (runs - k) for k in range(misses + 1))
    assert at_most == pytest.approx(0.05, rel=1e-6)
    assert misses / runs < bound <= 1


def test_the_escape_bound_is_about_three_over_n_and_unknown_without_any() -> None:
    assert escape_bound(0, 0) is None
    assert escape_bound(300, 0) == pytest.approx(3 / 300, rel=0.01)


@given(st.floats(0, 1e8))
def test_intervals_are_at_most_twelve(span_s: float) -> None:
    assert bucket_s(span_s) * 12 >= span_s


def state(unix_ns: int, name: str, reason: str = "") -> dict[str, object]:
    return {"unix_ns": unix_ns, "kind": "state", "title": name, "detail": {"state": name, "reason": reason}}


@given(
    st.lists(st.tuples(st.integers(0, 100), st.sampled_from(list(EngineState))), max_size=20),
    st.none() | st.sampled_from(list(EngineState)),
)
def test_stops_are_the_time_in_which_no_part_is_accepted(
    changes: list[tuple[int, EngineState]], before: EngineState | None
) -> None:
    changes.sort(key=lambda change: change[0])
    stops = stops_in([state(at, name) for at, name in changes], before and state(-5, before), 0)
    moment_state = before or EngineState.RUNNING  # nothing is known: no stop is claimed
    expected = 0
    for moment in range(101):
        moment_state = next((name for at, name in reversed(changes) if at <= moment), moment_state)
        expected += moment_state not in (EngineState.READY, EngineState.RUNNING)
    assert sum(stop.duration_ns(101) for stop in stops) == expected
    assert all(stop.ended_unix_ns is not None for stop in stops[:-1])


def test_a_stop_is_named_by_its_first_reason_and_worst_state() -> None:
    stop_event = {"unix_ns": 12, "kind": "stop", "title": "", "detail": {"reason": "lunch"}}
    stops = stops_in(
        [
            state(10, "PAUSED"),
            stop_event,
            state(20, "READY"),
            state(30, "PAUSED", "x"),
            state(31, "FAULT", "camera"),
        ],
        None,
        0,
    )
    assert [(stop.state, stop.reason, stop.started_unix_ns, stop.ended_unix_ns) for stop in stops] == [
        ("PAUSED", "lunch", 10, 20),
        ("FAULT", "camera", 30, None),
    ]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (0.2, "< 1 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (61, "1 min 01 s"),
        (3600, "1 h"),
        (3900, "1 h 05 min"),
    ],
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert duration(int(seconds * S)) == words


counts = st.fixed_dictionaries({str(verdict): st.integers(0, 10**6) for verdict in Verdict})


@given(st.lists(counts, max_size=40), st.sampled_from([5, 60, 3600, 86_400]))
def test_the_bars_are_drawing_and_inside(buckets: list[dict[str, int]], interval_s: int) -> None:
    shown = [Bucket(number * interval_s * S, parts) for number, parts in enumerate(buckets)]
    check_drawing(charts.stacked_bars(shown, interval_s, None))


@given(
    st.lists(
        st.tuples(st.sampled_from(list(Verdict)), st.text(max_size=20), st.integers(1, 10**7)), max_size=12
    )
)
def test_the_pareto_is_drawing_and_inside(reasons: list[tuple[str, str, int]]) -> None:
    printable = [(v, "".join(filter(str.isprintable, reason)), parts) for v, reason, parts in reasons]
    check_drawing(charts.pareto(sorted(printable, key=lambda row: -row[2])))


@given(st.lists(st.booleans(), max_size=200))
def test_the_control_chart_is_drawing_and_inside(passed: list[bool]) -> None:
    check_drawing(charts.control_chart(p_chart([(n * S, good) for n, good in enumerate(passed)]), None))


@given(st.lists(st.floats(0, 1e6), max_size=80), st.floats(0.1, 1e6))
def test_the_histogram_is_drawing_and_inside(latencies_ms: list[float], takt_ms: float) -> None:
    check_drawing(charts.latency_histogram(sorted(latencies_ms), takt_ms))


def check_drawing(svg: str) -> None:
    """Well-formed, and no box leaves the picture."""
    root = ElementTree.fromstring(svg)
    for box in root.iter("{http://www.w3.org/2000/svg}rect"):
        x, y, width, height = (float(box.attrib[name]) for name in ("x", "y", "width", "height"))
        assert x >= -0.1 and x + width <= charts.WIDTH + 0.1
        assert y >= -0.1 and y + height <= charts.HEIGHT + 0.1
        assert width > 0 and height > 0
