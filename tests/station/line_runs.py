"""What tests of a whole line share: parts by colour, a run to its end, an account that is whole."""

import time
from collections.abc import Callable

from station.engine import Engine
from station.run_figures import read_run
from station.types import LedgerSnapshot, Verdict

PASS, RECHECK, REJECT = (50, 0, 0), (95, 0, 0), (150, 0, 0)


def run_line(engine: Engine, timeout_s: float = 60) -> LedgerSnapshot:
    engine.start()
    finished = engine.done.wait(timeout_s)
    account = engine.stop(engine.stop_reason or "test timed out")
    assert finished, "the line did not finish its parts"
    return account


def assert_whole(account: LedgerSnapshot, engine: Engine, parts: int) -> list[dict[str, object]]:
    rows = [dict(row) for row in read_run(engine.config.database_path, engine.run_id)]
    assert account.balanced()
    assert account.triggered == parts == account.rows == len(rows)
    assert account.in_flight == 0
    counts = (account.passed, account.recheck, account.reject, account.not_inspected)
    for verdict, counted in zip(Verdict, counts, strict=True):
        assert sum(row["verdict"] == verdict for row in rows) == counted
    return rows


def wait_until(condition: Callable[[], bool]) -> None:
    give_up_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < give_up_s
        time.sleep(0.01)
