from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_line import ROOT

from drivers.config import ModbusPlcConfig, PylonConfig, ReplayConfig, SimulatedConfig
from station.config import config_sha256, load_config
from station.yaml_source import ConfigError

SHIPPED = (ROOT / "config.yaml").read_text()


def load(folder: Path, text: str):
    path = folder / "config.yaml"
    path.write_text(text)
    return load_config(path)


def error_of(folder: Path, old: str, new: str) -> str:
    assert old in SHIPPED
    with pytest.raises(ConfigError) as caught:
        load(folder, SHIPPED.replace(old, new, 1))
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{folder / 'config.yaml'}:")
    return message.removeprefix(f"{folder / 'config.yaml'}:")


def test_shipped_file_loads_and_paths_are_relative_to_it(tmp_path: Path) -> None:
    config = load(tmp_path, SHIPPED)
    assert config.station.data_dir == tmp_path / "station-data"
    assert isinstance(config.cameras[0], SimulatedConfig)
    assert config.model.bundle.name == "model.safetensors"
    assert [shift.name for shift in config.shifts] == ["A", "B", "C"]


def test_every_key_of_every_section_is_in_the_shipped_file_with_a_comment() -> None:
    config = load_config(ROOT / "config.yaml")
    for section, model in config:
        if section in ("cameras", "shifts"):
            continue
        keys = ModbusPlcConfig.__dataclass_fields__ if section == "plc" else type(model).model_fields
        for key in keys:
            lines = [
                line for line in SHIPPED.splitlines() if line.strip().removeprefix("# ").startswith(f"{key}:")
            ]
            assert lines, f"{section}.{key} is not in config.yaml"
            assert any("#" in line for line in lines), f"{section}.{key} has no comment"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("driver: simulated         #", "driver: gige #", "16:5: cameras.0.driver: input should be"),
        ("driver: simulated         #", "driver: gige #", "'pylon' (got 'gige')"),
        ("width_px: 512 ", "widht_px: 512 ", "18:5: cameras.0.widht_px: unknown key"),
        ("height_px: 512", "height_px: 9", "19:5: cameras.0.height_px: must be 64 to 4096 px (got 9)"),
        ("deadline_ms: 1000", "deadline_ms: soon", "inspection.deadline_ms: input should be a valid number"),
        ("deadline_ms: 1000", "deadline_ms: 1", "greater than or equal to 10 (got 1)"),
        ("takt_ms: 250", "takt_ms: 0250", "12:12: 0250 is ambiguous in YAML; quote it"),
        ("lot: LOT-0001", "lot: no", "10:8: no is ambiguous"),
        ("start: '06:00'", "start: 06:00", "06:00 is ambiguous"),
        ("start: '06:00'", "start: '25:00'", "shifts.0.start"),
        ("'14:00'", "'06:00'", "two shifts with the same start"),
        ("reject_delay_ms: 1500", "reject_delay_ms: 9", "outputs.reject_delay_ms: (9) must be at least"),
        ("reject_delay_ms: 1500", "gate_acts: 1", "outputs.gate_acts: unknown key"),
        ("gate_acts_on: pass", "gate_acts_on: both", "gate_acts_on: input should be 'pass' or 'reject'"),
        ("tracking: time", "tracking: encoder", "outputs.reject_counts: must be above 0 with tracking"),
        ("reject_confirm_ms: 0", "reject_confirm_ms: 9", "plc.driver: 'none' does not go with outputs."),
        ("source: software  ", "source: plc ", "plc.driver: 'none' does not go with trigger.source: plc"),
        ("  driver: none  ", "  driver: profinet", "plc.driver: input should be 'none', 'modbus'"),
        ("  driver: none  ", "  driver: modbus", "plc.host: is missing"),
        ("  driver: none  ", "  host: x\n  port: 0\n  driver: modbus", "plc.port: must be 1 to 65535"),
        ("stop_rejects: 0 ", "stop_rejects: 51 ", "inspection.stop_rejects: (51) must be at most"),
        ("green: {driver: none}", "green: {driver: modbus}", "outputs.stack_light.green.host: is missing"),
        ("green: {driver: none}", "green: {driver: camera}", "outputs.stack_light.green: 'camera' needs"),
        ("source: software  ", "source: camera ", "43:3: trigger.source: 'camera' needs a camera with"),
        ("  recipe: button-wood-4", "  # none", "line.recipe: is missing"),
        ("station:\n", "stations:\n", "4:1: stations: unknown key"),
        ("  device: auto ", "  bundle: other\n  device: auto ", "duplicate key 'bundle'"),
        ("  device: auto ", "  device: ", "model.device: is empty; give it a value"),
        ("  name: STATION 1", "\tname: STATION 1", "tab in the indentation"),
        ("name: STATION 1", "name: &anchor X", "anchors and aliases are not allowed"),
        ("name: STATION 1", "name: !!python/name:os.system x", "is not allowed"),
        ("port: 17800", "port: 80", "publishing.port: input should be greater than or equal to 1024"),
        ("name: STATION 1", "name: ''", "station.name"),
        ("station:\n", "station: [\n", ""),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_place(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert message in error_of(tmp_path, old, new)


@pytest.mark.parametrize("content", [b"", b"\xff", b"- 1\n- 2\n", b"x" * 1_000_001, b"[" * 2000, b"{[]: 1}"])
def test_what_is_no_configuration_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"config\.yaml") as caught:
        load_config(path)
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "none.yaml")


def test_other_cameras(tmp_path: Path) -> None:
    head, rest = SHIPPED.split("  - driver: simulated", 1)
    tail = rest[rest.index("trigger:") :]
    replay = load(tmp_path, f"{head}  - {{driver: replay, folder: pictures}}\n{tail}").cameras[0]
    assert replay == ReplayConfig(folder=tmp_path / "pictures")
    pylon = load(tmp_path, f"{head}  - {{driver: pylon, emulated: true, image_folder: /x}}\n{tail}").cameras[
        0
    ]
    assert pylon == PylonConfig(emulated=True, image_folder=Path("/x"))


def test_fingerprint_follows_the_content(tmp_path: Path) -> None:
    first = load(tmp_path, SHIPPED)
    assert config_sha256(first) == config_sha256(load(tmp_path, SHIPPED))
    assert config_sha256(first) != config_sha256(
        load(tmp_path, SHIPPED.replace("takt_ms: 250", "takt_ms: 9"))
    )


@given(st.binary(max_size=300))
def test_random_bytes_are_an_error_never_a_crash(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "random.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError):
        load_config(path)


@given(st.text(max_size=40), st.integers(0, 60))
def test_a_random_edit_is_an_error_or_a_valid_configuration(
    tmp_path_factory: pytest.TempPathFactory, text: str, line: int
) -> None:
    lines = SHIPPED.splitlines()
    lines.insert(min(line, len(lines)), text)
    path = tmp_path_factory.getbasetemp() / "edited.yaml"
    path.write_text("\n".join(lines), encoding="utf-8", errors="surrogatepass")
    try:
        load_config(path)
    except ConfigError as error:
        assert "\n" not in str(error)
