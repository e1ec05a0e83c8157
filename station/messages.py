"""What the screens are told of a part and of the line; `wire` makes bytes of it."""

import math
import time
from collections.abc import Sequence

from station.config import StationConfig
from station.health import HealthSnapshot
from station.keeping import part_uid
from station.types import EngineState, Inspection, LedgerSnapshot, StatusMessage, VerdictMessage
from station.worker_wire import Model


def verdict_message(inspection: Inspection, run_id: str) -> VerdictMessage:
    """One decided part."""
    limits, result = inspection.limits, inspection.result
    return VerdictMessage(
        part_seq=inspection.trigger.part_seq,
        uid=part_uid(run_id, inspection.trigger.part_seq),
        verdict=inspection.verdict,
        reason=inspection.detail or inspection.reason,
        score=result.score if result and math.isfinite(result.score) else None,
        limit_recheck=limits.recheck if limits else 0.0,
        limit_reject=limits.reject if limits else 0.0,
        latency_ms=inspection.latency_ms,
        triggered_unix_ns=inspection.trigger.triggered_unix_ns,
        regions=inspection.regions,
    )


def status_message(
    config: StationConfig,
    state: tuple[EngineState, str],
    models: Sequence[Model],
    ledger: LedgerSnapshot,
    health: HealthSnapshot,
) -> StatusMessage:
    """The whole line at this moment."""
    line = config.line
    return StatusMessage(
        station=config.station.name,
        state=state[0],
        state_reason=state[1],
        recipe=line.recipe,
        lot=line.lot,
        user=line.user,
        model=" + ".join(map(str, models)),
        shift=health.shift.name,
        shift_started_unix_ns=health.shift.started_unix_ns,
        ledger=ledger,
        shift_counts=health.shift_counts,
        reject_streak=health.reject_streak,
        yield_target_percent=line.yield_target_percent,
        latency_ms=health.latency_ms,
        parts_per_s=health.parts_per_s,
        takt_ms=line.takt_ms,
        devices=health.devices,
        alarms=health.alarms,
        trend=health.trend,
        sent_unix_ns=time.time_ns(),
    )
