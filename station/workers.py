"""The workers' life: one is kept serving, whatever happens to it, and can be exchanged for one with another
model.

A worker that dies, hangs or says what it should not is killed; another is started after a pause that grows,
at most `max_restarts_per_hour` times. For another model a second worker is loaded beside the serving one and
takes over when it is warm; the old one finishes the parts in it, then ends. Where the second one fails, the
first one never knew.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from station.restarts import Restarts
from station.sections import InspectionSection
from station.slab import Slab
from station.worker_link import Hangup, Worker, WorkerLink, bundle_arguments
from station.worker_wire import Answer, Failed, Model, Ready

log = logging.getLogger(__name__)

_STEADY_S = 30.0  # a worker that has lived so long runs well


class WorkerFault(Exception):
    """The worker cannot be kept running."""


class BadAnswer(Exception):
    """What a worker answered cannot be true; it is lost."""


@dataclass(frozen=True, slots=True)
class Swap:
    """Another model for the line.

    Attributes:
        bundle: its file.
        trusted_keys: folder of the keys one of which must have signed it.
        on_over: told once how it ended, in the inspection stage's thread: the model before (None where none
            was ready), the new one (None where it failed), and why it failed.
    """

    bundle: Path
    trusted_keys: Path
    on_over: Callable[[Model | None, Model | None, str], None]


class Workers:
    """One thread, the inspection stage, calls everything but `swap` and the attributes."""

    def __init__(
        self,
        command: Sequence[str],
        slab: Slab,
        config: InspectionSection,
        on_state: Callable[[str, str], None],
        on_lost: Callable[[Worker, str], None],
    ) -> None:
        """Set up; `start` starts the first worker.

        Args:
            command: starts a worker, see `worker_link`.
            slab: shared with every worker.
            config: what makes a worker hang, and how often it is started again.
            on_state: told the serving worker's state (ok, warn or fault) and a text when they change.
            on_lost: told of a worker that was killed and why, while it still names its parts.
        """
        self._command = tuple(command)
        self._swapped: Swap | None = None  # whose model serves, instead of the command's own
        self._slab = slab
        self._config = config
        self._on_state = on_state
        self._on_lost = on_lost
        self.serving: Worker | None = None
        """Takes parts once it has a model; None between two."""
        self._next: Worker | None = None  # loads the model of `_swap`
        self._retiring: Worker | None = None  # has parts in it, gets no more
        self._ending: list[WorkerLink] = []
        self._swap: Swap | None = None
        self._swap_lock = threading.Lock()
        self._restarts = Restarts(config.max_restarts_per_hour)
        self.settled = threading.Event()
        """Set once the first worker is ready, or cannot be."""
        self.start_error = ""
        """Why the first worker could not start."""

    @property
    def model(self) -> Model | None:
        """The model that the next part is judged with; None while none is ready."""
        serving = self.serving
        return serving.model if serving else None

    @property
    def pid(self) -> int | None:
        """Process id of the serving worker."""
        serving = self.serving
        return serving.link.pid if serving else None

    @property
    def restarts(self) -> int:
        """How often a serving worker was lost."""
        return self._restarts.count

    def all(self) -> tuple[Worker, ...]:
        """Every worker that can have a part in it, or will."""
        return tuple(worker for worker in (self.serving, self._retiring, self._next) if worker)

    def swap(self, swap: Swap) -> bool:
        """Ask for another model; any thread may. False while one asked for before is under way."""
        with self._swap_lock:
            if self._swap is not None or self._retiring is not None:
                return False
            self._swap = swap
            return True

    # --- messages

    def receive(self, on_answer: Callable[[Worker, Answer], None]) -> None:
        """Read every worker; `on_answer` takes what is about parts, and may raise BadAnswer.

        Raises:
            WorkerFault: the serving worker was lost too often.
        """
        for worker in self.all():
            for message in worker.link.receive():
                if why := self._take(worker, message, on_answer):
                    self._lose(worker, why)
                    break

    def _take(
        self,
        worker: Worker,
        message: Ready | Failed | Answer | Hangup,
        on_answer: Callable[[Worker, Answer], None],
    ) -> str:
        """Act on one message; why the worker is lost, if it is."""
        match message:
            case Hangup(why) | Failed(why):
                return why
            case Ready() if worker.model is not None:
                return "worker said twice that it is ready"
            case Ready(model):
                worker.model = model
                if worker is self._next:
                    self._take_over(worker, model)
                self._tell_ok()
                self.settled.set()
            case _:
                try:
                    on_answer(worker, message)
                except BadAnswer as error:
                    return str(error)
                worker.progress_ns = time.perf_counter_ns()
        return ""

    def _take_over(self, worker: Worker, model: Model) -> None:
        """The next part goes to the new worker; the old one finishes what is in it."""
        old, self.serving, self._next = self.serving, worker, None
        with self._swap_lock:
            swap, self._swap, self._retiring = self._swap, None, old
        assert swap is not None
        self._swapped = swap
        self._restarts.steady()
        swap.on_over(old.model if old else None, model, "")

    def _tell_ok(self) -> None:
        """The serving worker is well, if there is one."""
        if model := self.model:
            loading = f"; loading {self._swap.bundle.name}" if self._swap else ""
            self._on_state("ok", model.model_name + loading)

    # --- start, watch, end

    def start(self) -> None:
        """Start a worker that is to serve."""
        self._on_state("warn", "loading the model")
        try:
            self.serving = Worker(WorkerLink(self._serve(self._swapped), self._slab))
        except OSError as error:  # no memory for a process, say
            why = f"worker cannot be started: {error}"
            self._on_state("fault", why)
            self._plan_restart(why)

    def _serve(self, swap: Swap | None) -> list[str]:
        """The command that serves the model of a swap, or the first one."""
        return [*self._command, *(bundle_arguments(swap.bundle, swap.trusted_keys) if swap else ())]

    def watch(self, may_start: bool) -> None:
        """Kill workers that hang, start others when it is time, collect those that have ended.

        Raises:
            WorkerFault: the serving worker was lost too often.
        """
        for worker in self.all():
            if why := worker.stuck(self._config):
                self._lose(worker, why)
        if self._retiring and not (self._retiring.model and self._retiring.parts):
            retired, self._retiring = self._retiring, None
            self._end(retired)
        if self.serving is None and may_start and not self.start_error and self._restarts.due:
            self.start()
        if self._swap and not self._next and may_start:
            self._load(self._swap)
        if self.serving and time.monotonic() - self.serving.started_s > _STEADY_S:
            self._restarts.steady()
        self._collect(wait=False)

    def _collect(self, wait: bool) -> None:
        self._ending = [link for link in self._ending if not link.ended(wait)]

    def _load(self, swap: Swap) -> None:
        try:
            self._next = Worker(WorkerLink(self._serve(swap), self._slab))
        except OSError as error:
            self._swap_failed(f"worker cannot be started: {error}")
        self._tell_ok()

    def _swap_failed(self, why: str) -> None:
        with self._swap_lock:
            swap, self._swap = self._swap, None
        assert swap is not None
        self._tell_ok()
        swap.on_over(self.model, None, why)

    def _lose(self, worker: Worker, why: str) -> None:
        """Kill it, have its parts rejected, and plan what comes next."""
        level = logging.ERROR if self.settled.is_set() else logging.INFO
        log.log(level, "worker %d lost: %s", worker.link.pid, why)
        worker.link.kill()
        self._ending.append(worker.link)
        if worker is self._next:
            self._next = None
            self._swap_failed(why)
        elif worker is self._retiring:
            self._retiring = None
            self._on_lost(worker, why)
        else:
            self.serving = None
            self._on_state("fault", why)
            self._on_lost(worker, why)
            self._plan_restart(why)

    def _plan_restart(self, why: str) -> None:
        """No worker serves any more: when to start another."""
        if not self.settled.is_set():  # the engine tells why, and does not start the line
            self.start_error = why
            self.settled.set()
            return
        lost = self._restarts.lost()
        if self._restarts.exhausted:
            raise WorkerFault(f"worker lost {lost} times within an hour; last: {why}")

    def _end(self, worker: Worker) -> None:
        """Have it end by itself; one that still loads would not notice."""
        if worker.model is None:
            worker.link.kill()
        else:
            worker.link.hang_up()
        self._ending.append(worker.link)

    def close(self) -> None:
        """End every worker, and wait for that."""
        for worker in self.all():
            self._end(worker)
        self.serving = self._retiring = self._next = None
        if self._swap:
            self._swap_failed("the line stopped")
        while self._ending:
            self._collect(wait=True)
        self.settled.set()
