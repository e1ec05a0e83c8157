"""Another model for a line that runs: asked for by a command, carried out by `workers`, kept in the record.

It lasts until the line stops. The next start serves the model that `config.yaml` names: that file is its
owner's, and nothing else says what a line starts with.
"""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from db.models import EventKind
from station.health import LineHealth
from station.worker_wire import Model
from station.workers import Swap, Workers

_MAX_PATH = 4096

RecordEvent = Callable[[EventKind, str, str, dict[str, Any], str], None]


class ModelChange:
    """The engine's `model` command, and how the last change went."""

    def __init__(self, trusted_keys: Path, health: LineHealth, record_event: RecordEvent) -> None:
        """Nothing has been changed yet.

        Args:
            trusted_keys: folder of the keys that are trusted; no command can name another.
            health: takes the alarm of a change that failed.
            record_event: takes kind, severity, title, detail and user.
        """
        self._trusted_keys = trusted_keys
        self._health = health
        self._record_event = record_event
        self._lock = threading.Lock()
        self._last: dict[str, Any] = {}

    def command(self, workers: Workers, arguments: dict[str, Any], user: str) -> dict[str, Any]:
        """Begin a change to `bundle`, signed by a trusted key; without `bundle` only tell.

        Returns:
            `ok`, and `error` where that is false; else `model` (in use) and, of the last change, `bundle`,
            `loading` (it is under way), `old`, `new`, and `failed` (why there is no new one).
        """
        with self._lock:
            if "bundle" in arguments:
                try:
                    bundle = _absolute(arguments["bundle"], "bundle")
                except ValueError as error:
                    return {"ok": False, "error": str(error)}
                change = Swap(bundle, self._trusted_keys, lambda *end: self._over(bundle, user, *end))
                if not workers.swap(change):
                    under_way = f"the model is being changed to {self._last['bundle']}; wait for its end"
                    return {"ok": False, "error": under_way}
                self._last = {"bundle": str(bundle), "loading": True, "old": "", "new": "", "failed": ""}
            return {"ok": True, "model": str(workers.model or ""), **self._last}

    def _over(self, bundle: Path, user: str, old: Model | None, new: Model | None, why: str) -> None:
        """How it ended, told by the inspection stage."""
        names = {"old": str(old or ""), "new": str(new or "")}
        if new is None:
            action = "the model in use runs on; see that the bundle is whole and signed by a trusted key"
            self._health.alarm("model", "medium", f"MODEL NOT CHANGED: {why}", action)
            self._health.clear("model")  # nothing lasts but the news
        else:
            title = f"model changed from {old or 'none'} to {new}"
            detail = {**names, "bundle": str(bundle)}
            self._record_event(EventKind.CHANGEOVER, "info", title, detail, user)
        with self._lock:
            self._last = {"bundle": str(bundle), "loading": False, **names, "failed": why}


def _absolute(value: object, name: str) -> Path:
    if not isinstance(value, str) or not value.startswith("/") or len(value) > _MAX_PATH or "\0" in value:
        raise ValueError(f"{name} must be an absolute path (got {str(value)[:80]!r})")
    return Path(value)
