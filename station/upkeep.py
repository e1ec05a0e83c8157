"""The stages beside the line, which no part passes: supervision, housekeeping, metrics; and their alarms."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from station.housekeeping import HousekeepingStage
from station.ledger import account_text
from station.metrics import LineCollector, MetricsStage
from station.stage import Stage
from station.supervision import Report, SupervisionStage
from station.types import EngineState

if TYPE_CHECKING:
    from station.engine import Engine


class Upkeep:
    """What an engine has beside its line; the engine starts and stops the stages. Housekeeping and metrics
    that fail are an alarm, and stop nothing."""

    def __init__(self, engine: "Engine", on_fatal: Callable[[Stage], None]) -> None:
        """Compose the stages.

        Args:
            engine: its record and configuration are there already.
            on_fatal: told when supervision dies: the line is to be stopped in order, while that is possible.
        """
        self._engine = engine
        config = engine.config
        self.supervision = SupervisionStage(
            report=self._report, on_hanging=self._hanging, on_failure=on_fatal
        )
        self.housekeeping = HousekeepingStage(
            config, engine.recording, on_chores=self._chores_done, on_failure=self._ended
        )
        self.metrics = MetricsStage(
            LineCollector(engine), config.metrics, on_trouble=self._no_metrics, on_failure=self._ended
        )

    def _report(self) -> Report:
        state, reason = self._engine.state()
        told = f"{state}: {reason}" if reason else str(state)
        return Report(
            stopping=self._engine.lifecycle in (EngineState.STOPPING, EngineState.STOPPED),
            text=f"{told}; {account_text(self._engine.ledger.snapshot())}",
            hanging=tuple(stage for stage in self._engine.stages if stage.hangs),
        )

    def _hanging(self, stages: tuple[Stage, ...]) -> None:
        """Stages that get nowhere any more: whoever runs the station must start it again."""
        for vital, key, priority in ((True, "hang", "high"), (False, "helper-hang", "medium")):
            names = ", ".join(stage.name for stage in stages if stage.vital is vital)
            title = f"STATION HANGS: {names}" if names else ""
            self._alarm(key, priority, title, "restart the station; send the log")

    def _chores_done(self, problems: Mapping[str, str]) -> None:
        for chore, problem in problems.items():
            title = f"{chore.upper()}: {problem}" if problem else ""
            self._alarm(chore, "medium", title, "see housekeeping in the configuration; the line runs on")

    def _no_metrics(self, problem: str) -> None:
        title = f"METRICS: {problem}" if problem else ""
        self._alarm("metrics", "medium", title, "see metrics in the configuration; the line runs on")

    def _ended(self, stage: Stage) -> None:
        title = f"{stage.name.upper()} ENDED: {stage.error or type(stage.error).__name__}"
        self._alarm(f"stage-{stage.name}", "medium", title, "restart the station at the next break")

    def _alarm(self, key: str, priority: str, title: str, action: str) -> None:
        """Raise it; without a title the condition is over."""
        if title:
            self._engine.health.alarm(key, priority, title, action)
        else:
            self._engine.health.clear(key)
