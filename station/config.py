"""`config.yaml` as one typed, bounded, frozen object. Unknown keys are refused; every error names its line.

Paths in the file are relative to the file. The drivers' own frozen dataclasses nest here unchanged.
"""

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from drivers.config import (
    CameraConfig,
    CameraOutputConfig,
    NoOutputConfig,
    NoPlcConfig,
    OutputConfig,
    PlcConfig,
    PylonConfig,
)
from station.logs import LogFile
from station.shifts import ShiftConfig
from station.yaml_source import ConfigError, Location, YamlDocument, read_yaml

DEMO_MODEL = Path(__file__).parent / "demo" / "model.safetensors"
DEMO_KEYS = Path(__file__).parent / "demo"

CameraChoice = Annotated[CameraConfig, Field(discriminator="driver")]
OutputChoice = Annotated[OutputConfig, Field(discriminator="driver")]
PlcChoice = Annotated[PlcConfig, Field(discriminator="driver")]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class StationSection(_Section):
    """Who this station is and where it keeps its record."""

    name: str = Field(min_length=1, max_length=40)
    data_dir: Path
    """Folder of database, images, reports and logs."""


class LineSection(_Section):
    """What runs on the line."""

    recipe: str = Field(min_length=1, max_length=60)
    lot: str = Field(default="", max_length=60)
    user: str = Field(default="", max_length=60)
    takt_ms: float = Field(gt=0, le=3_600_000)
    """Time between two parts that the line is planned for."""
    yield_target_percent: float = Field(default=97.0, ge=0, le=100)


class TriggerSection(_Section):
    """What starts an exposure."""

    source: Literal["software", "camera", "plc"] = "software"
    """`software`: the station's clock, every `interval_ms`; `camera`: the camera's own input line; `plc`: the
    handshake's trigger."""
    interval_ms: float = Field(default=250.0, ge=5, le=3_600_000)
    frame_timeout_ms: float = Field(default=500.0, ge=10, le=60_000)
    """A software trigger with no buffer within this time is FRAME MISSING."""
    late_ms: float = Field(default=20.0, ge=1, le=60_000)
    """A PLC's trigger that cannot be passed on to the camera within this time is TRIGGER MISSED."""


class ModelSection(_Section):
    """Which detector, and where it runs."""

    bundle: Path
    """A model bundle, or `demo` for the one that ships with the station."""
    trusted_keys: Path | None = None
    """Folder of *.pub files whose signatures are trusted; none = beside the bundle."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = Field(default=0, ge=0, le=256)
    """CPU threads of the worker; 0 = all cores."""


class InspectionSection(_Section):
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


class StackLightSection(_Section):
    """The lamps over the station."""

    green: OutputChoice = Field(default_factory=NoOutputConfig)
    """The line runs."""
    amber: OutputChoice = Field(default_factory=NoOutputConfig)
    """It is held or starting, or an alarm waits for somebody."""
    red: OutputChoice = Field(default_factory=NoOutputConfig)
    """Something is broken; parts are rejected."""
    buzzer: OutputChoice = Field(default_factory=NoOutputConfig)
    """An alarm of high priority that nobody has acknowledged."""


class OutputsSection(_Section):
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


class RecordSection(_Section):
    """Rows and images."""

    linger_ms: float = Field(default=20.0, ge=0, le=1000)
    """Rows are committed together when they come within this time."""
    pass_image_every: int = Field(default=50, ge=0, le=1_000_000)
    """One passed part in so many keeps its image (JPEG); 0 = none. Others keep all theirs, lossless."""
    max_pending_images: int = Field(default=64, ge=1, le=10_000)
    """Images waiting for the disk; more are shed and flagged in their row. Rows never are."""
    ballast_mb: float = Field(default=64.0, ge=0, le=100_000)
    """Disk space kept back for rows, in megabytes; where it cannot be had, images are shed."""


class HousekeepingSection(_Section):
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


class PublishingSection(_Section):
    """Where the screens find the engine."""

    host: str = "127.0.0.1"
    port: int = Field(default=47800, ge=1024, le=65_533)
    """First of three consecutive TCP ports: previews, events, commands."""
    preview_px: int = Field(default=1024, ge=64, le=4096)
    """Longest side of a preview image."""
    preview_hz: float = Field(default=15.0, gt=0, le=60)
    status_hz: float = Field(default=4.0, gt=0, le=30)


class MetricsSection(_Section):
    """Where Prometheus finds the line's figures."""

    host: str = "127.0.0.1"
    port: int = Field(default=47810, ge=0, le=65_535)
    """TCP port; 0 = no metrics."""


class LogSection(_Section):
    """What is written into `data_dir/logs`, as JSON lines."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    max_mb: float = Field(default=10.0, ge=0.01, le=1000)
    """A file that would grow beyond this many megabytes is put aside."""
    kept: int = Field(default=9, ge=1, le=100)
    """So many files put aside stay, of each process."""


class StationConfig(_Section):
    """The whole file."""

    station: StationSection
    line: LineSection
    cameras: tuple[CameraChoice, ...] = Field(min_length=1, max_length=1)
    """One camera in this version; a list, because parts with several views are next."""
    trigger: TriggerSection = TriggerSection()
    model: ModelSection
    inspection: InspectionSection = InspectionSection()
    outputs: OutputsSection = OutputsSection()
    plc: PlcChoice = Field(default_factory=NoPlcConfig)
    record: RecordSection = RecordSection()
    housekeeping: HousekeepingSection = HousekeepingSection()
    publishing: PublishingSection = PublishingSection()
    metrics: MetricsSection = MetricsSection()
    log: LogSection = LogSection()
    shifts: tuple[ShiftConfig, ...] = Field(min_length=1, max_length=24)

    @field_validator("shifts")
    @classmethod
    def _shifts_differ(cls, shifts: tuple[ShiftConfig, ...]) -> tuple[ShiftConfig, ...]:
        for what in ("name", "start"):
            values = [getattr(shift, what) for shift in shifts]
            if len(set(values)) != len(values):
                raise ValueError(f"two shifts with the same {what}: {', '.join(values)}")
        return shifts

    @model_validator(mode="after")
    def _camera_has_an_input_line(self) -> "StationConfig":
        if self.trigger.source == "camera" and not isinstance(self.cameras[0], PylonConfig):
            raise ValueError(
                "trigger.source 'camera' needs a camera with an input line; "
                f"{self.cameras[0].driver!r} has none, use 'software'"
            )
        camera = self.cameras[0]
        if isinstance(camera, PylonConfig) and (camera.trigger_source == "Software") != (
            self.trigger.source != "camera"
        ):
            raise ValueError(
                f"trigger.source {self.trigger.source!r} does not go with the camera's trigger_source "
                f"{camera.trigger_source!r}: 'camera' goes with an input line, the others with Software"
            )
        return self

    @model_validator(mode="after")
    def _gate_after_deadline(self) -> "StationConfig":
        outputs = self.outputs
        if (
            not isinstance(outputs.reject_gate, NoOutputConfig)
            and outputs.tracking == "time"
            and outputs.reject_delay_ms < self.inspection.deadline_ms
        ):
            raise ValueError(
                f"outputs.reject_delay_ms ({outputs.reject_delay_ms:g}) must be at least "
                f"inspection.deadline_ms ({self.inspection.deadline_ms:g}): a late part must still be caught"
            )
        if outputs.tracking == "encoder" and not outputs.reject_counts:
            raise ValueError("outputs.reject_counts must be above 0 with tracking: encoder (got 0)")
        if self.inspection.stop_rejects > self.inspection.stop_among:
            raise ValueError(
                f"inspection.stop_rejects ({self.inspection.stop_rejects}) must be at most "
                f"stop_among ({self.inspection.stop_among}), or it never stops the line"
            )
        return self

    @model_validator(mode="after")
    def _what_needs_what(self) -> "StationConfig":
        outputs = self.outputs
        if isinstance(self.plc, NoPlcConfig):
            for asked, key in (
                (self.trigger.source == "plc", "trigger.source: plc"),
                (outputs.tracking == "encoder", "outputs.tracking: encoder"),
                (outputs.reject_confirm_ms > 0, "outputs.reject_confirm_ms"),
            ):
                if asked:
                    raise ValueError(f"plc.driver 'none' does not go with {key}; set `driver: modbus`")
        wired = {"reject_gate": outputs.reject_gate} | {
            f"stack_light.{name}": lamp for name, lamp in outputs.lamps.items()
        }
        used: dict[str, str] = {}
        for name, output in wired.items():
            if not isinstance(output, CameraOutputConfig):
                continue
            if not isinstance(self.cameras[0], PylonConfig):
                raise ValueError(
                    f"outputs.{name} 'camera' needs a pylon camera; {self.cameras[0].driver!r} has no outputs"
                )
            if other := used.get(output.user_output):
                raise ValueError(f"outputs.{name} uses {output.user_output}, which {other} uses already")
            used[output.user_output] = name
        return self

    @model_validator(mode="after")
    def _passes_go_first(self) -> "StationConfig":
        keep = self.housekeeping
        if keep.pass_image_days > keep.other_image_days:
            raise ValueError(
                f"housekeeping.pass_image_days ({keep.pass_image_days:g}) must be at most "
                f"other_image_days ({keep.other_image_days:g})"
            )
        return self

    @property
    def backup_folder(self) -> Path:
        """Where backups of the record go."""
        return self.housekeeping.backup_folder or self.station.data_dir / "backups"

    @property
    def trusted_keys(self) -> Path:
        """The folder of keys that may sign models."""
        return self.model.trusted_keys or self.model.bundle.parent

    @property
    def database_path(self) -> Path:
        """The record's SQLite file."""
        return self.station.data_dir / "station.db"

    @property
    def images_dir(self) -> Path:
        """Where images and heatmaps lie."""
        return self.station.data_dir / "images"

    @property
    def logs_dir(self) -> Path:
        """Where the logs lie."""
        return self.station.data_dir / "logs"

    def log_file(self, process: str) -> LogFile:
        """Where a process of the line logs to."""
        path = self.logs_dir / f"{process}.jsonl"
        return LogFile(path, self.log.level, round(self.log.max_mb * 1e6), self.log.kept)


def load_config(path: Path) -> StationConfig:
    """Read and check a configuration file.

    Raises:
        ConfigError: with file, line, column, key, requested and allowed value.
    """
    document = read_yaml(path)
    if not isinstance(document.values, dict):
        raise document.error((), "expected sections such as 'station:' and 'cameras:'")
    values = _absolute_paths(document.values, path.resolve().parent)
    try:
        return StationConfig.model_validate(values)
    except ValidationError as error:
        raise _first_error(document, error) from error


def config_sha256(config: StationConfig) -> str:
    """Fingerprint of the settings in force, for the record."""
    return hashlib.sha256(config.model_dump_json().encode()).hexdigest()


_PATH_KEYS = (
    ("station", "data_dir"),
    ("model", "bundle"),
    ("model", "trusted_keys"),
    ("housekeeping", "backup_folder"),
)
_CAMERA_PATH_KEYS = ("folder", "settings_file", "image_folder")


def _absolute_paths(values: dict[str, Any], base: Path) -> dict[str, Any]:
    def resolve(section: Any, key: str) -> None:
        if isinstance(section, dict) and isinstance(section.get(key), str):
            section[key] = base / Path(section[key]).expanduser()

    model = values.get("model")
    if isinstance(model, dict) and model.get("bundle") == "demo":
        model["bundle"] = DEMO_MODEL
        model.setdefault("trusted_keys", DEMO_KEYS)
    for section, key in _PATH_KEYS:
        resolve(values.get(section), key)
    cameras = values.get("cameras")
    for camera in cameras if isinstance(cameras, list) else ():
        for key in _CAMERA_PATH_KEYS:
            resolve(camera, key)
    return values


_UNKNOWN_KEY = ("extra_forbidden", "unexpected_keyword_argument")


def _first_error(document: YamlDocument, error: ValidationError) -> ConfigError:
    problems = error.errors(include_url=False)
    # A misspelt key is also a missing one: say the cause, not the consequence.
    first = min(problems, key=lambda problem: problem["type"] not in _UNKNOWN_KEY)
    location = _without_union_tags(first["loc"], document)
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] in _UNKNOWN_KEY:
        message = "unknown key; remove it or check its spelling"
    elif first["type"] == "missing":
        message = "is missing; copy the key from the shipped config.yaml"
    elif first["type"].startswith("union_tag"):
        location = (*location, "driver")
        given = first["input"].get("driver") if isinstance(first["input"], dict) else first["input"]
        message = (
            f"input should be {first.get('ctx', {}).get('expected_tags', 'a known driver')} (got {given!r})"
        )
    elif not isinstance(first["input"], dict | list | tuple):
        message = f"{message[:1].lower()}{message[1:]} (got {_shown(first['input'])})"
    else:
        # A check of several keys, or a dataclass's own, speaks of one of them first: point there.
        named, _, rest = message.partition(" ")
        if (place := (*location, *named.split("."))) in document.places:
            location, message = place, rest
    return document.error(location, message)


def _shown(value: Any) -> str:
    text = str(value) if isinstance(value, Path) else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _without_union_tags(loc: tuple[str | int, ...], document: YamlDocument) -> Location:
    """pydantic puts the chosen driver's name into a location; the file has no such level."""
    location: Location = ()
    value: Any = document.values
    for part in loc:
        if isinstance(value, dict) and part not in value and value.get("driver") == part:
            continue
        location = (*location, part)
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            value = None  # a key that is missing
    return location
