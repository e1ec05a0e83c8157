"""What a run achieved, read back from its record: speed, and against a known truth its accuracy."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import select

from db.models import Part
from db.session import open_read_only
from station.health import percentiles_ms
from station.types import Verdict


def read_run(database_path: Path, run_id: str) -> list[Mapping[str, Any]]:
    """Every part of a run, in order of its number."""
    columns = (Part.part_seq, Part.verdict, Part.reason, Part.score, Part.latency_ms, Part.triggered_unix_ns)
    statement = select(*columns, Part.timings_ms, Part.plc_part_id)
    statement = statement.where(Part.run_id == run_id).order_by(Part.part_seq)
    database = open_read_only(database_path)
    try:
        with database.connect() as connection:
            return [dict(row) for row in connection.execute(statement).mappings()]
    finally:
        database.close()


def speed_figures(parts: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Trigger-to-verdict latency of inspected parts in milliseconds, and parts per second."""
    inspected = [part["latency_ms"] for part in parts if part["verdict"] != Verdict.NOT_INSPECTED]
    ends_ns = [part["triggered_unix_ns"] + part["latency_ms"] * 1e6 for part in parts]
    span_s = (max(ends_ns) - parts[0]["triggered_unix_ns"]) / 1e9 if parts else 0.0
    latency_ms = percentiles_ms(np.array(inspected)) or dict.fromkeys(("p50", "p95", "p99"))
    return {
        "latency_ms": {
            name: None if value is None else round(value, 1) for name, value in latency_ms.items()
        },
        "parts_per_s": round(len(parts) / span_s, 3) if span_s > 0 else None,
    }


def truth_figures(parts: list[Mapping[str, Any]], defects: list[str]) -> dict[str, Any]:
    """Accuracy against the truth.

    Args:
        parts: of one run, in order.
        defects: the defect class of each part, empty for a good one.

    Returns:
        image_auroc and per class (each against all good parts), escapes (defective parts passed) and overkill
        (good parts inspected and not passed). A part that was not inspected is neither. AUROC is null where a
        class is missing.
    """
    goods = [part["score"] for part, defect in zip(parts, defects, strict=True) if not defect]
    scores: dict[str, list[float | None]] = {}
    escapes = overkill = 0
    for part, defect in zip(parts, defects, strict=True):
        if defect:
            scores.setdefault(defect, []).append(part["score"])
            escapes += part["verdict"] == Verdict.PASS
        else:
            overkill += part["verdict"] in (Verdict.RECHECK, Verdict.REJECT)
    every = [score for of_class in scores.values() for score in of_class]
    return {
        "image_auroc": _auroc(goods, every),
        "escapes": escapes,
        "overkill": overkill,
        "good": len(goods),
        "defective": len(every),
        "auroc_by_defect": {name: _auroc(goods, of_class) for name, of_class in sorted(scores.items())},
    }


def _auroc(good: list[float | None], bad: list[float | None]) -> float | None:
    """Area under the ROC curve: how often a bad part scores above a good one."""
    good_scores = np.array([score for score in good if score is not None])
    bad_scores = np.array([score for score in bad if score is not None])
    if not len(good_scores) or not len(bad_scores):
        return None
    difference = bad_scores[:, None] - good_scores[None, :]
    return round(float((difference > 0).mean() + 0.5 * (difference == 0).mean()), 4)
