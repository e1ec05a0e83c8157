"""The settings of each device driver: frozen, checked on construction, nested as in `config.yaml`."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal


class _Strict:
    """Unknown keys are refused where these are read from a file."""

    __slots__ = ()
    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedConfig(_Strict):
    """A rendered line of garment buttons.

    Attributes:
        driver: names this kind in `config.yaml`.
        camera_id: the name on the screen and in the record.
        width_px: image width, 64 to 4096.
        height_px: image height, 64 to 4096.
        material: the line's product; one line makes one look.
        seed: everything rendered follows from it and the part's index.
        defect_rate: share of defective parts, 0 to 1.
        transfer_ms: pretended exposure and transfer time in milliseconds.
        failed_every: one buffer in so many fails; 0 = never.
    """

    driver: Literal["simulated"] = "simulated"
    camera_id: str = "CAM 1"
    width_px: int = 512
    height_px: int = 512
    material: Literal["wood", "plastic"] = "wood"
    seed: int = 1
    defect_rate: float = 0.25
    transfer_ms: float = 5.0
    failed_every: int = 0

    def __post_init__(self) -> None:
        """Refuse values out of bounds."""
        for name in ("width_px", "height_px"):
            value = getattr(self, name)
            if not 64 <= value <= 4096:
                raise ValueError(f"{name} must be 64 to 4096 px (got {value})")
        if self.material not in ("wood", "plastic"):
            raise ValueError(f"material must be wood or plastic (got {self.material!r})")
        if not 0.0 <= self.defect_rate <= 1.0:
            raise ValueError(f"defect_rate must be 0 to 1 (got {self.defect_rate})")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative (got {self.seed})")
        if self.transfer_ms < 0:
            raise ValueError(f"transfer_ms must not be negative (got {self.transfer_ms})")
        if self.failed_every < 0:
            raise ValueError(f"failed_every must not be negative (got {self.failed_every})")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayConfig(_Strict):
    """A folder of images as a camera.

    Attributes:
        driver: names this kind in `config.yaml`.
        camera_id: the name on the screen and in the record.
        folder: images (png, jpg, jpeg, bmp, tif, tiff, webp) are found below it, in path order.
        loop: start again at the end; otherwise a trigger past the end yields a failed grab.
    """

    folder: Path
    driver: Literal["replay"] = "replay"
    camera_id: str = "CAM 1"
    loop: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class PylonConfig(_Strict):
    """A Basler camera, real or emulated, through pypylon.

    Attributes:
        driver: names this kind in `config.yaml`.
        camera_id: the name on the screen and in the record.
        serial: the camera's serial number; empty takes the only camera there is.
        settings_file: a .pfs file to load, verify and read back; None leaves the camera as it is.
        pixel_format: a pylon name such as Mono8, BayerRG8, RGB8Packed; empty leaves the camera's.
        width_px: region of interest, centred on the sensor; 0 leaves the camera's.
        height_px: likewise.
        exposure_us: exposure time in microseconds, 0 = the camera's.
        gain_db: gain in decibels, or raw units on older cameras; None = the camera's.
        trigger_source: `Software`, or an input line such as `Line1`.
        emulated: pylon's camera emulator instead of hardware.
        image_folder: emulator only: a file or folder of images it shows instead of its test picture.
    """

    driver: Literal["pylon"] = "pylon"
    camera_id: str = "CAM 1"
    serial: str = ""
    settings_file: Path | None = None
    pixel_format: str = ""
    width_px: int = 0
    height_px: int = 0
    exposure_us: float = 0.0
    gain_db: float | None = None
    trigger_source: str = "Software"
    emulated: bool = False
    image_folder: Path | None = None

    def __post_init__(self) -> None:
        """Refuse values out of bounds."""
        if self.image_folder is not None and not self.emulated:
            raise ValueError("image_folder needs emulated: true (a real camera shows its own pictures)")
        if self.width_px < 0 or self.height_px < 0:
            raise ValueError(
                f"width_px and height_px must not be negative (got {self.width_px}, {self.height_px})"
            )
        if self.exposure_us < 0:
            raise ValueError(f"exposure_us must not be negative (got {self.exposure_us})")


CameraConfig = SimulatedConfig | ReplayConfig | PylonConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class NoOutputConfig(_Strict):
    """Nothing is wired: somebody else acts."""

    driver: Literal["none"] = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedOutputConfig(_Strict):
    """An output that only remembers when it was switched on."""

    driver: Literal["simulated"] = "simulated"


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraOutputConfig(_Strict):
    """A user output of the line's camera.

    Attributes:
        driver: names this kind in `config.yaml`.
        user_output: the camera's name for it. Which line it drives is set in the camera (LineSource).
    """

    driver: Literal["camera"] = "camera"
    user_output: str = "UserOutput1"

    def __post_init__(self) -> None:
        """Refuse an empty name."""
        if not self.user_output:
            raise ValueError("user_output must name one of the camera's, such as UserOutput1 (got '')")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModbusOutputConfig(_Strict):
    """One coil of a remote I/O station or PLC, over a Modbus TCP connection of its own.

    Attributes:
        driver: names this kind in `config.yaml`.
        host: name or address.
        port: TCP port.
        unit: Modbus unit (device) number, 0 to 255.
        coil: coil number, counted from 0.
        timeout_ms: longest wait for a connection or an answer, milliseconds.
    """

    host: str
    driver: Literal["modbus"] = "modbus"
    port: int = 502
    unit: int = 1
    coil: int = 0
    timeout_ms: float = 300.0

    def __post_init__(self) -> None:
        """Refuse values out of bounds."""
        _check_modbus(self.host, self.port, self.unit, self.timeout_ms)
        if not 0 <= self.coil <= 65_535:
            raise ValueError(f"coil must be 0 to 65535 (got {self.coil})")


OutputConfig = SimulatedOutputConfig | NoOutputConfig | CameraOutputConfig | ModbusOutputConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class NoPlcConfig(_Strict):
    """No PLC: nothing is shaken hands with."""

    driver: Literal["none"] = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModbusPlcConfig(_Strict):
    """A PLC that serves the handshake's registers over Modbus TCP; see `drivers.plc` for the map.

    Attributes:
        driver: names this kind in `config.yaml`.
        host: name or address.
        port: TCP port.
        unit: Modbus unit (device) number, 0 to 255.
        read_address: first holding register that the PLC writes and the station reads, counted from 0.
        write_address: first holding register that the station writes and the PLC reads.
        cycle_ms: time between two exchanges, milliseconds.
        timeout_ms: longest wait for a connection or an answer, milliseconds.
        heartbeat_ms: a PLC whose heartbeat stands still for so long is lost, milliseconds.
        acknowledge_ms: a result that is not acknowledged within this time is withdrawn, milliseconds.
    """

    host: str
    driver: Literal["modbus"] = "modbus"
    port: int = 502
    unit: int = 1
    read_address: int = 0
    write_address: int = 100
    cycle_ms: float = 10.0
    timeout_ms: float = 300.0
    heartbeat_ms: float = 1000.0
    acknowledge_ms: float = 200.0

    def __post_init__(self) -> None:
        """Refuse values out of bounds."""
        _check_modbus(self.host, self.port, self.unit, self.timeout_ms)
        for name in ("read_address", "write_address"):
            value = getattr(self, name)
            if not 0 <= value <= 65_500:
                raise ValueError(f"{name} must be 0 to 65500 (got {value})")
        if abs(self.read_address - self.write_address) < 16:
            raise ValueError(
                f"write_address must be at least 16 registers away from read_address {self.read_address} "
                f"(got {self.write_address})"
            )
        for name, low, high in (
            ("cycle_ms", 1, 1000),
            ("heartbeat_ms", 50, 60_000),
            ("acknowledge_ms", 10, 60_000),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} must be {low} to {high} milliseconds (got {value:g})")


def _check_modbus(host: str, port: int, unit: int, timeout_ms: float) -> None:
    if not host:
        raise ValueError("host must be a name or an address (got '')")
    if not 1 <= port <= 65_535:
        raise ValueError(f"port must be 1 to 65535 (got {port})")
    if not 0 <= unit <= 255:
        raise ValueError(f"unit must be 0 to 255 (got {unit})")
    if not 10 <= timeout_ms <= 10_000:
        raise ValueError(f"timeout_ms must be 10 to 10000 milliseconds (got {timeout_ms:g})")


PlcConfig = NoPlcConfig | ModbusPlcConfig
