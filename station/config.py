"""`config.yaml` as one typed, bounded, frozen object. Unknown keys are refused; every error names its line.

Paths in the file are relative to the file. The drivers' own frozen dataclasses nest here unchanged.
"""

import hashlib
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator, model_validator

from drivers.config import (
    CameraConfig,
    CameraOutputConfig,
    NoOutputConfig,
    NoPlcConfig,
    PlcConfig,
    PylonConfig,
)
from station.logs import LogFile
from station.sections import (
    HousekeepingSection,
    InspectionSection,
    LineSection,
    LogSection,
    MetricsSection,
    ModelSection,
    OutputsSection,
    PublishingSection,
    RecordSection,
    Section,
    StationSection,
    TriggerSection,
)
from station.shifts import ShiftConfig
from station.yaml_source import ConfigError, Location, YamlDocument, read_yaml

DEMO_MODEL = Path(__file__).parent / "demo" / "model.safetensors"
DEMO_KEYS = Path(__file__).parent / "demo"

CameraChoice = Annotated[CameraConfig, Field(discriminator="driver")]
PlcChoice = Annotated[PlcConfig, Field(discriminator="driver")]


class StationConfig(Section):
    """The whole file."""

    station: StationSection
    line: LineSection
    cameras: tuple[CameraChoice, ...] = Field(min_length=1, max_length=16)
    """The first one leads; the others are triggered by the station for each of its parts."""
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
    def _cameras_differ(self) -> "StationConfig":
        names = [camera.camera_id for camera in self.cameras]
        for index, name in enumerate(names):
            if name in names[:index]:
                raise ValueError(
                    f"cameras.{index}.camera_id {name!r} is another camera's already; name it otherwise"
                )
        if unknown := sorted(set(self.model.views) - set(names)):
            raise ValueError(f"model.views names {unknown[0]!r}, and the cameras are {', '.join(names)}")
        return self

    @model_validator(mode="after")
    def _triggers_fit_the_cameras(self) -> "StationConfig":
        if self.trigger.source == "camera" and not isinstance(self.cameras[0], PylonConfig):
            raise ValueError(
                "trigger.source 'camera' needs a camera with an input line; "
                f"{self.cameras[0].driver!r} has none, use 'software'"
            )
        for index, camera in enumerate(self.cameras):
            if not isinstance(camera, PylonConfig):
                continue
            by_line = index == 0 and self.trigger.source == "camera"
            if (camera.trigger_source == "Software") != by_line:
                continue
            if index:
                raise ValueError(
                    f"cameras.{index}.trigger_source must be Software (got {camera.trigger_source!r}): "
                    "the first camera leads, the station triggers the others"
                )
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

    def bundle_of(self, camera_id: str) -> Path:
        """The model for a camera."""
        return self.model.views.get(camera_id, self.model.bundle)

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
    ("publishing", "keys"),
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
    views = model.get("views") if isinstance(model, dict) else None
    for camera_id in views if isinstance(views, dict) else ():
        resolve(views, camera_id)
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
    elif first["input"] is None:
        message = "is empty; give it a value"
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
