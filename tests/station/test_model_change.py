"""Another model for a line that runs, with real worker processes round stand-in detectors."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from line_runs import PASS, assert_whole, wait_until
from scripted_line import STAND_IN, ScriptedCamera, line_config

from db.session import open_read_only
from station.client import CommandClient, CommandError
from station.engine import Engine


class Line:
    """A line with model `a`, under which all parts pass; its parts follow each other closely."""

    def __init__(self, folder: Path, think_ms: int = 0, **changes: dict[str, object]) -> None:
        self.folder = folder
        config = line_config(folder / "data", **{"trigger": {"interval_ms": 40.0}, **changes})
        camera = ScriptedCamera([(50, think_ms // 4, 0)])
        command = [*STAND_IN, "--bundle", self.bundle("a")]
        self.engine = Engine(config, cameras=[camera], command=command)
        self.engine.start()
        self.client = CommandClient(config.publishing.host, config.publishing.port, timeout_ms=20_000)
        self.rows: list[Any] = []

    def bundle(self, model_id: str, **more: object) -> str:
        path = self.folder / f"{model_id}.json"
        path.write_text(json.dumps({"model_id": model_id, **more}))
        return str(path)

    def use(self, bundle: str) -> dict[str, Any]:
        """Ask for another model, and wait for the end of the change."""
        self.client.send("model", bundle=bundle, user="anna")
        wait_until(lambda: not self.client.send("model")["loading"])
        return self.client.send("model")

    def more_parts(self, parts: int = 3) -> None:
        before = self.engine.ledger.snapshot()
        wait_until(lambda: self.engine.ledger.snapshot().triggered >= before.triggered + parts)

    def stop(self) -> None:
        account = self.engine.stop("done")
        assert self.engine.fault == ""
        assert_whole(account, self.engine, account.triggered)
        self.rows = self.select("SELECT * FROM part ORDER BY part_seq")

    def select(self, sql: str) -> list[Any]:
        database = open_read_only(self.engine.config.database_path)
        with database.connect() as connection:
            rows = connection.exec_driver_sql(sql).all()
        database.close()
        return list(rows)


@pytest.fixture
def lines(tmp_path: Path, no_leaks: None) -> Iterator[Any]:
    made: list[Line] = []

    def make(**arguments: Any) -> Line:
        made.append(Line(tmp_path, **arguments))
        return made[-1]

    yield make
    for line in made:
        line.client.close()
        if not line.rows:
            line.engine.stop("test failed")


def test_no_part_is_lost_and_each_keeps_the_model_it_was_sent_to(lines: Any) -> None:
    """A few more parts than one worker can judge: the old one has its hands full when the new one comes."""
    patience = {"deadline_ms": 3000.0, "queue_length": 256}
    line = lines(think_ms=100, trigger={"interval_ms": 90.0}, inspection=patience)
    line.more_parts()
    end = line.use(line.bundle("b", limit=0.4))
    assert (end["old"], end["new"], end["failed"]) == ("stand-in a", "stand-in b", "")
    line.more_parts(6)
    line.stop()
    models = [row.model_id for row in line.rows]
    assert models == sorted(models), "no part goes back to the old model"
    assert set(models) == {"a", "b"}
    for row in line.rows:
        assert (row.verdict, row.limit_reject) == (("PASS", 1.0) if row.model_id == "a" else ("REJECT", 0.4))
    (event,) = line.select("SELECT * FROM event WHERE kind = 'changeover'")
    assert (event.title, event.user) == ("model changed from stand-in a to stand-in b", "anna")
    assert json.loads(event.detail)["bundle"] == str(line.folder / "b.json")
    decided_ns = [row.triggered_unix_ns + row.latency_ms * 1e6 for row in line.rows if row.model_id == "a"]
    assert max(decided_ns) > event.unix_ns, "the old model finished its parts after the new one had come"
    assert line.engine.worker_restarts == 0


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("missing", "b.json: no such file"),
        ("crash", "worker exited with status 3"),
        ("kill", "worker killed by signal 9"),
        ("nan", "the score of an empty picture is no finite number (got nan)"),
        ("out of memory", "MemoryError: Unable to allocate"),
        ("hang", "the model was not ready within 1 s"),
    ],
)
def test_a_model_that_cannot_be_used_changes_nothing(lines: Any, fault: str, why: str) -> None:
    line = lines()
    if fault == "hang":
        line.engine.config.inspection.__dict__["start_timeout_s"] = 1.0  # now that the first one is ready
    bundle = line.bundle("b", fault=fault)
    if fault == "missing":
        Path(bundle).unlink()
    end = line.use(bundle)
    assert why in end["failed"]
    assert (end["model"], end["new"]) == ("stand-in a", "")
    line.more_parts()
    (told,) = line.engine.health.snapshot().alarms
    assert told.title.startswith("MODEL NOT CHANGED: ")
    assert why in told.title
    assert "\n" not in told.title
    assert not told.active, "it is news; the line is well"
    line.stop()
    assert {(row.verdict, row.model_id) for row in line.rows} == {("PASS", "a")}
    assert line.engine.worker_restarts == 0


def test_one_change_at_a_time_and_only_what_can_be_one(lines: Any) -> None:
    line = lines()
    line.client.send("model", bundle=line.bundle("b", load_s=60))
    wait_until(lambda: "stand-in; loading b.json" in [d.text for d in line.engine.status().devices])
    with pytest.raises(CommandError, match=r"is being changed to .*b\.json; wait for its end"):
        line.client.send("model", bundle=line.bundle("c"))
    for bundle in ("model.json", 7, "/a\0b", "/" * 5000):
        with pytest.raises(CommandError, match="bundle must be an absolute path"):
            line.client.send("model", bundle=bundle)
    assert line.client.send("model")["loading"], "refusals leave the change alone"
    line.stop()  # with the change under way
    assert {row.model_id for row in line.rows} == {"a"}
    assert [event.title for event in line.select("SELECT * FROM event WHERE kind = 'alarm'")] == [
        "MODEL NOT CHANGED: the line stopped"
    ]


def test_a_worker_lost_after_the_change_is_replaced_by_one_with_the_new_model(lines: Any) -> None:
    line = lines()
    line.use(line.bundle("b"))
    assert line.engine.worker_pid is not None
    os.kill(line.engine.worker_pid, signal.SIGKILL)
    wait_until(lambda: line.engine.worker_restarts == 1 and line.engine.signals().ready)
    line.more_parts()
    line.stop()
    assert (line.rows[-1].verdict, line.rows[-1].model_id) == ("PASS", "b")


def test_the_old_worker_lost_during_the_change_is_replaced_and_the_change_goes_on(lines: Any) -> None:
    line = lines()
    line.client.send("model", bundle=line.bundle("b", load_s=2))
    wait_until(lambda: any("loading" in device.text for device in line.engine.status().devices))
    os.kill(line.engine.worker_pid, signal.SIGKILL)
    wait_until(lambda: not line.client.send("model")["loading"])
    assert line.client.send("model")["new"] == "stand-in b"
    line.more_parts()
    line.stop()
    assert line.engine.worker_restarts == 1
    assert (line.rows[-1].verdict, line.rows[-1].model_id) == ("PASS", "b")


def test_another_model_brings_back_a_line_whose_own_is_gone(lines: Any) -> None:
    line = lines()
    (line.folder / "a.json").unlink()
    os.kill(line.engine.worker_pid, signal.SIGKILL)
    wait_until(lambda: line.engine.worker_restarts >= 2)
    line.use(line.bundle("b"))
    wait_until(lambda: line.engine.signals().ready)
    line.more_parts()
    line.stop()
    assert (line.rows[-1].verdict, line.rows[-1].model_id) == ("PASS", "b")


def test_nothing_is_changed_before_the_line_has_started(tmp_path: Path) -> None:
    engine = Engine(line_config(tmp_path), cameras=[ScriptedCamera([PASS])], command=STAND_IN)
    answer = engine.command("model", {"bundle": "/b.json"})
    assert answer == {"ok": False, "error": "the line is STARTING; model is not possible now"}
    engine.stop("done")
