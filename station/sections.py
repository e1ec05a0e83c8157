"""The sections of `config.yaml`, each key with its unit, its bounds and its default."""

import ipaddress
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from drivers.config import NoOutputConfig, OutputConfig

OutputChoice = Annotated[OutputConfig, Field(discriminator="driver")]

LONGEST_RECIPE = 60  # characters


class Section(BaseModel):
    """What every section is: closed, frozen, finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class StationSection(Section):
    """Who this station is and where it keeps its record."""

    name: str = Field(min_length=1, max_length=40)
    data_dir: Path
    """Folder of database, images, reports and logs."""


class LineSection(Section):
    """What runs on the line."""

    recipe: str = Field(min_length=1, max_length=LONGEST_RECIPE)
    lot: str = Field(default="", max_length=60)
    user: str = Field(default="", max_length=60)
    takt_ms: float = Field(gt=0, le=3_600_000)
    """Time between two parts that the line is planned for."""
    yield_target_percent: float = Field(default=97.0, ge=0, le=100)


class TriggerSection(Section):
    """What starts an exposure."""

    source: Literal["software", "camera", "plc"] = "software"
    """`software`: the station's clock, every `interval_ms`; `camera`: the camera's own input line; `plc`: the
    handshake's trigger."""
    interval_ms: float = Field(default=250.0, ge=5, le=3_600_000)
    frame_timeout_ms: float = Field(default=500.0, ge=10, le=60_000)
    """A software trigger with no buffer within this time is FRAME MISSING."""
    lost_after: int = Field(default=3, ge=0, le=10_000)
    """So many in a row, and the camera is taken for lost and opened again; 0 = never."""
    reject_repeats: bool = True
    """An image that is pixel by pixel the one before is FRAME REPEATED: the camera hangs."""
    late_ms: float = Field(default=20.0, ge=1, le=60_000)
    """A trigger of the PLC, or of the first camera for the others, that reaches its camera later than this is
    TRIGGER MISSED."""


class ModelSection(Section):
    """Which detector, and where it runs."""

    bundle: Path
    """A model bundle, or `demo` for the one that ships with the station."""
    trusted_keys: Path | None = None
    """Folder of *.pub files whose signatures are trusted; none = beside the bundle."""
    views: dict[str, Path] = Field(default_factory=dict)
    """camera_id -> the bundle for that camera; the others take `bundle`."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = Field(default=0, ge=0, le=256)
    """CPU threads of the worker; 0 = all cores."""


class InspectionSection(Section):
    """Queues, deadlines and what becomes of a stuck worker."""

    deadline_ms: float = Field(default=1000.0, ge=10, le=600_000)
    """Trigger to verdict; later = NOT INSPECTED."""
    queue_length: int = Field(default=8, ge=1, le=256)
    """Parts that may wait for the worker; more = NOT INSPECTED."""
    hang_ms: float = Field(default=3000.0, ge=50, le=600_000)
    """A worker silent on one part for so long is killed and started again."""
    start_timeout_s: float = Field(default=120.0, ge=1, le=3600)
    """Longest loading and warm-up of a model."""
    max_restarts_per_hour: int = Field(default=20, ge=1, le=1000)
    """More worker restarts than this put the engine in FAULT."""
    max_consecutive_rejects: int = Field(default=20, ge=0, le=10_000)
    """So many rejects in a row raise an alarm; 0 = never."""
    stop_consecutive_rejects: int = Field(default=0, ge=0, le=10_000)
    """So many rejects in a row hold the line; 0 = never."""
    stop_rejects: int = Field(default=0, ge=0, le=10_000)
    """So many rejects among the last `stop_among` parts hold the line; 0 = never."""
    stop_among: int = Field(default=50, ge=1, le=10_000)


class StackLightSection(Section):
    """The lamps over the station."""

    green: OutputChoice = Field(default_factory=NoOutputConfig)
    """The line runs."""
    amber: OutputChoice = Field(default_factory=NoOutputConfig)
    """It is held or starting, or an alarm waits for somebody."""
    red: OutputChoice = Field(default_factory=NoOutputConfig)
    """Something is broken; parts are rejected."""
    buzzer: OutputChoice = Field(default_factory=NoOutputConfig)
    """An alarm of high priority that nobody has acknowledged."""


class OutputsSection(Section):
    """What moves when a part is good or bad, and what shines."""

    reject_gate: OutputChoice = Field(default_factory=NoOutputConfig)
    gate_acts_on: Literal["pass", "reject"] = "pass"
    """`pass`: the output opens the good lane, at rest the gate rejects; `reject`: an ejector."""
    stroke_ms: float = Field(default=100.0, ge=1, le=60_000)
    """How long the gate's output stays on for one part."""
    tracking: Literal["time", "encoder"] = "time"
    """How a part is followed to the gate: by `reject_delay_ms`, or `reject_counts` of the PLC's encoder."""
    reject_delay_ms: float = Field(default=1500.0, ge=0, le=600_000)
    """Trigger to gate: how long a part travels. It must exceed the inspection deadline."""
    reject_counts: int = Field(default=0, ge=0, le=1_000_000_000)
    """Trigger to gate: how many encoder counts a part travels."""
    reject_confirm_ms: float = Field(default=0.0, ge=0, le=600_000)
    """Gate to sensor: a reject that the PLC has not counted as left by then holds the line; 0 = no sensor."""
    stack_light: StackLightSection = StackLightSection()

    @property
    def lamps(self) -> dict[str, OutputChoice]:
        """Name -> output of the stack light's lamps."""
        return {name: getattr(self.stack_light, name) for name in type(self.stack_light).model_fields}


class RecordSection(Section):
    """Rows and images."""

    linger_ms: float = Field(default=20.0, ge=0, le=1000)
    """Rows are committed together when they come within this time."""
    pass_image_every: int = Field(default=50, ge=0, le=1_000_000)
    """One passed part in so many keeps its image (JPEG); 0 = none. Others keep all theirs, lossless."""
    max_pending_images: int = Field(default=64, ge=1, le=10_000)
    """Images waiting for the disk; more are shed and flagged in their row. Rows never are."""
    ballast_mb: float = Field(default=64.0, ge=0, le=100_000)
    """Disk space kept back for rows, in megabytes; where it cannot be had, images are shed."""


class HousekeepingSection(Section):
    """How long the record is kept, and where it is backed up."""

    every_minutes: float = Field(default=15.0, ge=0.001, le=1440)
    """Time between two looks for what is old, and for whether a backup is due."""
    pass_image_days: float = Field(default=30.0, ge=0, le=36_500)
    other_image_days: float = Field(default=365.0, ge=1, le=36_500)
    """All pictures but those of passed parts, and every map."""
    max_images_gb: float = Field(default=100.0, ge=0.001, le=1_000_000)
    """Gigabytes of pictures and maps; beyond it the oldest go, those of passed parts first."""
    row_days: float = Field(default=0.0, ge=0, le=36_500)
    """Rows of parts and events; 0 = for ever."""
    backup_hours: float = Field(default=24.0, ge=0, le=8760)
    """Time between two backups; 0 = none."""
    backup_folder: Path | None = None
    """None = `backups` in the data folder, which is no help against a broken disk."""
    backups_kept: int = Field(default=7, ge=1, le=1000)


class PublishingSection(Section):
    """Where the screens find the engine."""

    host: str = "127.0.0.1"
    port: int = Field(default=17800, ge=1024, le=65_533)
    """First of three consecutive TCP ports: previews, events, commands."""
    keys: Path | None = None
    """Folder that `station keys` has made: only screens with a key connect. None = this machine alone."""
    preview_px: int = Field(default=1024, ge=64, le=4096)
    """Longest side of a preview image."""
    preview_hz: float = Field(default=15.0, gt=0, le=60)
    status_hz: float = Field(default=4.0, gt=0, le=30)

    @model_validator(mode="after")
    def _other_machines_need_keys(self) -> "PublishingSection":
        if self.keys is None and not is_loopback(self.host):
            raise ValueError(
                f"host {self.host!r} lets other machines command this line and needs keys: run `station keys "
                "FOLDER` and set publishing.keys to that folder, or use 127.0.0.1"
            )
        return self


class MetricsSection(Section):
    """Where Prometheus finds the line's figures."""

    host: str = "127.0.0.1"
    port: int = Field(default=17810, ge=0, le=65_535)
    """TCP port; 0 = no metrics."""


class LogSection(Section):
    """What is written into `data_dir/logs`, as JSON lines."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    max_mb: float = Field(default=10.0, ge=0.01, le=1000)
    """A file that would grow beyond this many megabytes is put aside."""
    kept: int = Field(default=9, ge=1, le=100)
    """So many files put aside stay, of each process."""


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own, which no other machine can reach."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
