"""Every part of a soak, from three who do not know of each other: the PLC, the line's word, and the record.

The PLC counts what it triggers and where each part went. The line told, part by part, which of the PLC's
triggers it took and which rows it acknowledged. The record holds the rows. Here they are laid side by side.
"""

import threading
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import select

from benchmarks.storm import Fault
from benchmarks.supervised_line import End
from db.archive import Archive
from db.chain import read_faults
from db.models import Part
from db.queries import read_known_files
from db.session import open_read_only
from drivers.ladder import LadderCounts

PartKey = tuple[int, int]  # the PLC's session and trigger


class PlcBook:
    """What the PLC says: counts of each of its sessions, and the lane of each part."""

    def __init__(self) -> None:
        self.lanes: dict[PartKey, bool] = {}
        """Part -> whether it went to the good lane."""
        self.twice = 0
        self._lock = threading.Lock()
        self.sessions: list[tuple[LadderCounts, int]] = []
        """(counts, parts still on the way) of each session that has ended."""

    def sorted(self, session: int, trigger: int, good: bool) -> None:
        """A part is at the gate."""
        with self._lock:
            self.twice += (session, trigger) in self.lanes
            self.lanes[session, trigger] = good

    def session_ended(self, counts: LadderCounts, on_the_way: int) -> None:
        """The PLC was stopped; what was on the way is rejected by a gate at rest."""
        self.sessions.append((counts, on_the_way))


class Row(NamedTuple):
    """What the account needs of a row."""

    verdict: str
    reason: str
    score: float | None
    limit_recheck: float
    triggered_unix_ns: int


def read_record(path: Path) -> tuple[dict[str, Row], list[str], set[str]]:
    """Rows by uid, what is wrong with the record, the files its rows name."""
    columns = (Part.uid, Part.verdict, Part.reason, Part.score, Part.limit_recheck, Part.triggered_unix_ns)
    database = open_read_only(path)
    try:
        with database.connect() as connection:
            rows = {row[0]: Row(*row[1:]) for row in connection.execute(select(*columns))}
            faults = read_faults(connection) + ([database.loss] if database.loss else [])
            checked = connection.exec_driver_sql("PRAGMA integrity_check").scalars().first()
            files = read_known_files(connection)
    finally:
        database.close()
    return rows, faults + ([] if checked == "ok" else [str(checked)]), files


def account(
    book: PlcBook, ends: Sequence[End], rows: Mapping[str, Row], wrong: Sequence[str]
) -> dict[str, Any]:
    """Counts, and under `faults` each disagreement as a line; the account is exact when there is none."""
    taken: dict[PartKey, str] = {}
    acknowledged: set[str] = set()
    killed: set[str] = set()
    faults = [f"the record: {fault}" for fault in wrong]
    for end in ends:
        uids = {words[1] for words in end.told if words[0] == "heard"}
        for words in end.told:
            if words[0] == "heard":
                taken[int(words[2]), int(words[3])] = words[1]
            elif words[0] == "recorded":
                acknowledged.add(words[1])
            elif words[0] == "ended" and words[1] != words[2]:
                faults.append(f"an orderly end with {words[1]} parts triggered and {words[2]} rows")
        if not any(words[0] == "ended" for words in end.told):
            killed |= uids
    triggered = sum(counts.triggered for counts, _ in book.sessions)
    on_the_way = sum(parts for _, parts in book.sessions)
    if triggered != len(book.lanes) + on_the_way or book.twice:
        faults.append(f"the PLC triggered {triggered} parts, sorted {len(book.lanes)} ({book.twice} twice)")
    good = [part for part, lane in book.lanes.items() if lane]
    without_row = [part for part, uid in taken.items() if uid not in rows]
    passed_uninspected = [why for part in good if (why := why_not_passed(part, taken, rows))]
    faults += passed_uninspected
    faults += [f"acknowledged, and not in the record: {uid}" for uid in sorted(acknowledged - rows.keys())]
    faults += [
        f"taken in a run that was not killed, and without a row: {taken[part]}"
        for part in without_row
        if taken[part] not in killed
    ]
    faults += [
        f"a row of a part that the PLC never triggered: {uid}"
        for uid in sorted(rows.keys() - set(taken.values()))
    ]
    verdicts = Counter(row.verdict for row in rows.values())
    return {
        "parts_triggered_by_the_plc": triggered,
        "to_the_good_lane": len(good),
        "to_the_reject_lane": len(book.lanes) - len(good),
        "on_the_way_when_the_plc_was_restarted": on_the_way,
        "rows": len(rows),
        **{f"rows_{verdict.lower()}": count for verdict, count in sorted(verdicts.items())},
        "rejected_unseen_no_engine_heard_them": triggered - len(taken),
        "rejected_and_their_row_lost_with_a_killed_engine": len(without_row),
        "uninspected_parts_passed": len(passed_uninspected),
        "rows_acknowledged_and_lost": len(acknowledged - rows.keys()),
        "not_inspected_by_reason": dict(
            Counter(row.reason for row in rows.values() if row.verdict == "NOT_INSPECTED")
        ),
        "faults": faults,
    }


def why_not_passed(part: PartKey, taken: Mapping[PartKey, str], rows: Mapping[str, Row]) -> str:
    """Why a part in the good lane should not be there; empty when a row says that it passed."""
    uid = taken.get(part)
    if uid is None:
        return f"PLC part {part} is in the good lane and the line never took it"
    row = rows.get(uid)
    if row is None:
        return f"part {uid} is in the good lane and has no row"
    if row.verdict != "PASS" or row.score is None or not row.score < row.limit_recheck:
        return f"part {uid} is in the good lane: {row.verdict}, {row.reason}, score {row.score}"
    return ""


def stray_files(images_dir: Path, known: set[str]) -> list[str]:
    """Files of the archive that no row names, half-written ones among them."""
    files = (path for hour in Archive(images_dir).hours() for path in hour.iterdir())
    return [path.name for path in files if path.relative_to(images_dir).as_posix() not in known]


def recoveries(faults: Sequence[Fault], rows: Mapping[str, Row]) -> dict[str, dict[str, float | None]]:
    """By kind: how often, and seconds from the fault's end to the trigger of the next part that passed.

    Faults overlap: what another one costs meanwhile counts here, too.
    """
    passed_ns = sorted(row.triggered_unix_ns for row in rows.values() if row.verdict == "PASS")
    times = Counter(fault.kind for fault in faults)
    waits_s: dict[str, list[float]] = {}
    for fault in faults:
        waits = waits_s.setdefault(fault.kind, [])
        if (k := bisect_right(passed_ns, fault.healed_ns)) < len(passed_ns):  # none comes behind the storm
            waits.append((passed_ns[k] - fault.healed_ns) / 1e9)
    return {
        kind: {
            "times": times[kind],
            "median_s": round(sorted(waits)[len(waits) // 2], 2) if waits else None,
            "longest_s": round(max(waits), 2) if waits else None,
        }
        for kind, waits in sorted(waits_s.items())
    }
