"""The metrics stage: the line's figures for Prometheus, over HTTP, on this machine alone unless configured.

Every answer is read from the line at that moment; the parts of one answer are from one look at the ledger:

    station_triggered_total = sum(station_parts_total) + station_parts_in_flight
"""

import logging
import shutil
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from station.health import LATENCY_BUCKETS_MS
from station.sections import MetricsSection
from station.stage import LONGEST_WAIT_S, Stage
from station.types import EngineState

if TYPE_CHECKING:
    from station.engine import Engine

log = logging.getLogger(__name__)

_CLIENT_TIMEOUT_S = 2.0
_RETRY_S = 10.0
_DEVICE_STATES = ("ok", "warn", "fault")


class MetricsStage(Stage):
    """One thread that answers one question at a time."""

    vital = False

    def __init__(
        self,
        collector: Collector,
        config: MetricsSection,
        on_trouble: Callable[[str], None],
        on_failure: Callable[[Stage], None],
    ) -> None:
        """Set up; `start()` opens the port, and tries again where it is taken.

        Args:
            collector: reads the figures.
            config: address and port.
            on_trouble: told why there are no figures; empty = there are.
            on_failure: told when this stage dies.
        """
        super().__init__("metrics", on_failure)
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(collector)
        self._config = config
        self._on_trouble = on_trouble
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Answer no more, and end."""
        self._stopping.set()

    def work(self) -> None:
        """Until stopped: answer."""
        server = self._open()
        if server is None:
            return
        with server:
            server.timeout = LONGEST_WAIT_S / 4
            while not self._stopping.is_set():
                self.beat()
                server.handle_request()

    def _open(self) -> HTTPServer | None:
        """The server, as soon as its port is free; None when stopped before."""
        address = (self._config.host, self._config.port)
        handler = type("Handler", (_Handler,), {"registry": self._registry})
        while True:
            try:
                server = HTTPServer(address, handler)
            except OSError as error:
                why = error.strerror or error
                log.warning("metrics: %s:%d cannot be used: %s; change metrics.port", *address, why)
                self._on_trouble(f"port {address[1]} cannot be used ({why})")
            else:
                self._on_trouble("")
                return server
            if self._stopping.wait(_RETRY_S):
                return None


class _Handler(BaseHTTPRequestHandler):
    registry: CollectorRegistry
    timeout = _CLIENT_TIMEOUT_S
    server_version, sys_version = "station", ""

    def do_GET(self) -> None:
        if self.path.split("?")[0] not in ("/metrics", "/"):
            self.send_error(404)
            return
        body = generate_latest(self.registry)
        self.send_response(200)
        self.send_header("Content-Type", CONTENT_TYPE_LATEST)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        log.debug(format, *args)


class LineCollector(Collector):
    """Reads a line's figures; times in seconds, sizes in bytes, as Prometheus has them."""

    def __init__(self, engine: "Engine") -> None:
        """Nothing is read before `collect`."""
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        """All figures, at this moment."""
        yield from self._parts()
        yield self._latency()
        yield from self._states()
        yield from self._stages()
        yield from self._faults()
        yield from self._record()

    def _parts(self) -> Iterator[Metric]:
        account, parts = self._engine.ledger.by_reason()
        yield CounterMetricFamily("station_triggered", "Parts triggered in this run", account.triggered)
        decided = CounterMetricFamily(
            "station_parts", "Parts decided in this run", labels=["verdict", "reason"]
        )
        for (verdict, reason), count in parts.items():
            decided.add_metric([verdict, reason], count)
        yield decided
        yield GaugeMetricFamily("station_parts_in_flight", "Parts without a verdict yet", account.in_flight)
        yield CounterMetricFamily("station_rows", "Parts of this run that are on the disk", account.rows)
        lag = account.triggered - account.in_flight - account.rows
        yield GaugeMetricFamily("station_record_lag_rows", "Decided parts that are not on the disk yet", lag)

    def _latency(self) -> Metric:
        counts, sum_ms = self._engine.health.latency_histogram()
        buckets, below = [], 0
        for bound_ms, count in zip((*LATENCY_BUCKETS_MS, None), counts, strict=True):
            below += count
            buckets.append(("+Inf" if bound_ms is None else str(bound_ms / 1e3), below))
        name, words = "station_latency_seconds", "Trigger to verdict of inspected parts"
        return HistogramMetricFamily(name, words, buckets=buckets, sum_value=sum_ms / 1e3)

    def _states(self) -> Iterator[Metric]:
        state = self._engine.state()[0]
        states = GaugeMetricFamily("station_state", "1 for the state the line is in", labels=["state"])
        for possible in EngineState:
            states.add_metric([possible], possible is state)
        yield states
        devices = GaugeMetricFamily(
            "station_device_state", "1 for the state a device is in", labels=["device", "state"]
        )
        alarms = dict.fromkeys(("high", "medium", "low"), 0)
        snapshot = self._engine.health.snapshot()
        for device in snapshot.devices:
            for name in _DEVICE_STATES:
                devices.add_metric([device.name, name], name == device.state)
        yield devices
        for alarm in snapshot.alarms:
            alarms[alarm.priority] += alarm.active
        active = GaugeMetricFamily("station_alarms", "Alarms that are active", labels=["priority"])
        for priority, count in alarms.items():
            active.add_metric([priority], count)
        yield active

    def _stages(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("station_stage_up", "1 while a stage gets somewhere", labels=["stage"])
        silent = GaugeMetricFamily(
            "station_stage_silent_seconds", "Time since a stage got somewhere", labels=["stage"]
        )
        for stage in self._engine.stages:
            up.add_metric([stage.name], stage.is_alive() and not stage.hangs)
            silent.add_metric([stage.name], stage.silent_s)
        yield up
        yield silent
        queues = GaugeMetricFamily("station_queue_length", "What waits before a stage", labels=["queue"])
        for name, length in self._engine.queue_lengths().items():
            queues.add_metric([name], length)
        yield queues

    def _faults(self) -> Iterator[Metric]:
        restarts = self._engine.worker_restarts
        yield CounterMetricFamily("station_worker_restarts", "Workers lost and started again", restarts)
        words = "What went wrong with buffers"
        faults = CounterMetricFamily("station_camera_faults", words, labels=["camera", "kind"])
        for view in self._engine.views:
            for kind, count in view.acquisition.counts.items():
                faults.add_metric([view.camera_id, kind], count)
        yield faults

    def _record(self) -> Iterator[Metric]:
        shed = self._engine.recording.images_shed
        yield CounterMetricFamily("station_images_shed", "Pictures that should have been kept", shed)
        try:
            free = shutil.disk_usage(self._engine.config.station.data_dir).free
        except OSError:
            return
        yield GaugeMetricFamily("station_disk_free_bytes", "Free space where the record lies", free)
