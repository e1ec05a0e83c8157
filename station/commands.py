"""What a screen may ask of a running line, and what it is answered."""

from typing import TYPE_CHECKING, Any

from db.models import EventKind
from station.model_change import ModelChange
from station.types import EngineState

if TYPE_CHECKING:
    from station.engine import Engine

_KNOWN = "start, pause, acknowledge, model, shutdown"
_MAY_CHANGE_MODEL = (EngineState.READY, EngineState.RUNNING, EngineState.PAUSED)


class Commands:
    """Carries them out, one at a time: the publishing stage is the only caller."""

    def __init__(self, engine: "Engine") -> None:
        """The engine's health, record and views are asked when a command comes."""
        self._engine = engine
        self._model_changes: dict[str, ModelChange] = {}

    def carry_out(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """See `station.client.CommandClient`; `ok`, and `error` when that is false."""
        engine, lifecycle = self._engine, self._engine.lifecycle
        user = str(arguments.get("user", ""))[:60]
        match name:
            case "start" if lifecycle in (EngineState.READY, EngineState.PAUSED):
                engine.record_event(EventKind.COMMAND, "info", "line started", {}, user)
                engine.run_line()
            case "pause" if lifecycle in (EngineState.READY, EngineState.RUNNING):
                engine.pause(str(arguments.get("reason", ""))[:200] or "no reason given", user)
            case "acknowledge":
                key = str(arguments.get("key", ""))
                if not engine.health.acknowledge(key):
                    return _refused(f"there is no alarm {key!r}")
                title = f"alarm acknowledged: {key}"
                engine.record_event(EventKind.ACKNOWLEDGE, "info", title, {"key": key}, user)
            case "model" if lifecycle in _MAY_CHANGE_MODEL:
                return self._change_model(arguments, user)
            case "shutdown":
                engine.record_event(EventKind.COMMAND, "info", "shutdown asked for", {}, user)
                engine.request_stop("shutdown asked for by a screen")
            case "start" | "pause" | "model":
                return _refused(f"the line is {lifecycle}; {name} is not possible now")
            case _:
                return _refused(f"unknown command {name!r}; known are {_KNOWN}")
        return {"ok": True}

    def _change_model(self, arguments: dict[str, Any], user: str) -> dict[str, Any]:
        """Of the only camera, or of the one that is named."""
        engine = self._engine
        only = engine.camera_ids[0] if len(engine.views) == 1 else ""
        camera_id = str(arguments.get("camera") or only)
        for view in engine.views:
            if view.camera_id == camera_id and view.inspection is not None:
                change = self._model_changes.setdefault(
                    camera_id, ModelChange(engine.config.trusted_keys, engine.health, engine.record_event)
                )
                return change.command(view.inspection.workers, arguments, user)
        cameras = ", ".join(engine.camera_ids)
        return _refused(f"`camera` must name one of {cameras} (got {camera_id[:80]!r})")


def _refused(why: str) -> dict[str, Any]:
    return {"ok": False, "error": why}
