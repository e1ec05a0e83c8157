"""From state events to stops: when the line did not accept parts, for how long, and why."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from station.types import EngineState

_ACCEPTING = {EngineState.READY, EngineState.RUNNING}


@dataclass(frozen=True, slots=True)
class Stop:
    """One stop inside a window. `ended_unix_ns` is None while it goes on at the window's end."""

    started_unix_ns: int
    ended_unix_ns: int | None
    state: str
    reason: str

    def duration_ns(self, until_unix_ns: int) -> int:
        """How long it lasted, or has lasted at `until_unix_ns`."""
        return (until_unix_ns if self.ended_unix_ns is None else self.ended_unix_ns) - self.started_unix_ns


def stops_in(
    events: Iterable[Mapping[str, Any]], before: Mapping[str, Any] | None, start_unix_ns: int
) -> list[Stop]:
    """The stops of a window.

    A stop begins when the engine leaves READY and RUNNING and ends when it is back. Its reason is the first
    one a state or stop event gives within it.

    Args:
        events: the window's state and stop events, oldest first.
        before: the last state event before the window, or None.
        start_unix_ns: the window's start, where a stop that began before it is counted from.
    """
    stops: list[Stop] = []
    open_stop: Stop | None = None
    if before is not None and not _accepts(before):
        open_stop = Stop(start_unix_ns, None, _state(before), _reason(before))
    for event in events:
        if event["kind"] == "stop":
            if open_stop is not None and not open_stop.reason:
                open_stop = replace(open_stop, reason=_reason(event))
        elif _accepts(event):
            if open_stop is not None:
                stops.append(replace(open_stop, ended_unix_ns=event["unix_ns"]))
            open_stop = None
        elif open_stop is None:
            open_stop = Stop(event["unix_ns"], None, _state(event), _reason(event))
        elif not open_stop.reason or _state(event) == EngineState.FAULT:
            open_stop = replace(open_stop, state=_state(event), reason=_reason(event) or open_stop.reason)
    return [*stops, open_stop] if open_stop is not None else stops


def _state(event: Mapping[str, Any]) -> str:
    return str(event["detail"].get("state", event["title"]))


def _accepts(event: Mapping[str, Any]) -> bool:
    return _state(event) in _ACCEPTING


def _reason(event: Mapping[str, Any]) -> str:
    return str(event["detail"].get("reason", ""))
