"""A running line's figures, scraped from the real endpoint."""

import socket
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from line_runs import PASS, RECHECK, REJECT, wait_until
from prometheus_client.parser import text_string_to_metric_families
from scripted_line import STAND_IN, ScriptedCamera, free_port, line_config
from standin import FAULTS

from station.engine import Engine

Figures = dict[tuple[str, tuple[str, ...]], float]
SCRIPT = [PASS, RECHECK, REJECT, "missing", (50, 20, 0), (0, 0, FAULTS["error"])]


def scrape(port: int) -> Figures:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        families = text_string_to_metric_families(answer.read().decode())
        return {
            (sample.name, tuple(sample.labels.values())): sample.value
            for family in families
            for sample in family.samples
        }


def total(figures: Figures, name: str) -> float:
    return sum(value for (found, _), value in figures.items() if found == name)


def assert_ledger(figures: Figures) -> None:
    decided = total(figures, "station_parts_total")
    in_flight = total(figures, "station_parts_in_flight")
    assert total(figures, "station_triggered_total") == decided + in_flight
    assert total(figures, "station_rows_total") + total(figures, "station_record_lag_rows") == decided


def test_the_ledger_holds_in_every_scrape_of_a_running_line(tmp_path: Path, no_leaks: None) -> None:
    port = free_port()
    trigger = {"interval_ms": 8.0, "frame_timeout_ms": 30.0}
    config = line_config(tmp_path, trigger=trigger, metrics={"port": port})
    camera = ScriptedCamera(SCRIPT)
    engine = Engine(config, cameras=[camera], command=STAND_IN)
    engine.start()
    try:
        wait_until(lambda: engine.ledger.snapshot().triggered > 0)
        seen: set[float] = set()
        while len(seen) < 40:
            figures = scrape(port)
            assert_ledger(figures)
            seen.add(total(figures, "station_triggered_total"))
        assert figures["station_state", ("RUNNING",)] == 1
        assert figures["station_device_state", ("camera", "ok")] == 1
        assert figures["station_stage_up", ("inspection",)] == 1
        assert figures["station_camera_faults_total", ("CAM 1", "missing")] > 0
        assert {"inspection", "recording", "recording_images", "publishing"} == {
            labels[0] for name, labels in figures if name == "station_queue_length"
        }
        assert figures["station_disk_free_bytes", ()] > 0
        camera.script = [(0, 0, FAULTS["crash"])]
        wait_until(lambda: scrape(port)["station_worker_restarts_total", ()] >= 1)
        engine.command("pause", {"reason": "count"})
        wait_until(lambda: engine.ledger.snapshot().rows == engine.ledger.snapshot().triggered)
        figures = scrape(port)
        account, parts = engine.ledger.by_reason()
        assert_ledger(figures)
        assert {(v, r): figures["station_parts_total", (r, v)] for v, r in parts} == parts
        assert total(figures, "station_triggered_total") == account.triggered == account.rows
        inspected = account.passed + account.recheck + account.reject
        assert figures["station_latency_seconds_count", ()] == inspected
        assert figures["station_latency_seconds_bucket", ("+Inf",)] == inspected
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/secret", timeout=10)
    finally:
        engine.stop("done")


def test_a_taken_port_costs_the_figures_not_the_line(tmp_path: Path, no_leaks: None) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        config = line_config(tmp_path, metrics={"port": other.getsockname()[1]})
        engine = Engine(config, parts=3, cameras=[ScriptedCamera([PASS])], command=STAND_IN)
        engine.start()
        assert engine.done.wait(20)
        wait_until(lambda: "metrics" in [alarm.key for alarm in engine.health.snapshot().alarms])
        account = engine.stop("done")
    assert account.passed == account.rows == 3
