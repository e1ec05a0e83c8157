"""The command line as its user meets it: one line, what to do, status 2, no traceback."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from scripted_line import ROOT, STAND_IN, ScriptedCamera, free_port

from station.cli import main
from station.config import DEMO_MODEL
from tests.fuzzing import announced_png

SHIPPED = (ROOT / "config.yaml").read_text()


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(SHIPPED.replace("port: 17800", f"port: {free_port()}"))
    return path


@pytest.fixture
def read_only_folder(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "read-only"
    folder.mkdir()
    if os.geteuid() != 0:
        folder.chmod(0o500)
        yield folder
        folder.chmod(0o700)
        return
    mount = ["mount", "-t", "tmpfs", "-o", "ro,size=1m", "none", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a read-only folder cannot be made here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """Run a command that must be refused; what it said."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len([line for line in said if line.startswith("station: ")]) == 1
    assert not any("Traceback" in line for line in said)
    return said[-1]


def picture(path: Path, seed: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.random.default_rng(seed).integers(0, 255, (64, 64, 3), np.uint8))


@pytest.mark.parametrize("arguments", [[], ["dance"], ["run", "--parts", "0"], ["train"]])
def test_wrong_arguments_are_a_usage_error(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: station" in capsys.readouterr().err


def test_unknown_key(capsys: pytest.CaptureFixture[str], config_file: Path) -> None:
    change(config_file, "takt_ms: 250", "takt: 250")
    said = refused(capsys, "run", "--headless", "--config", config_file)
    assert said == f"station: {config_file}:12:3: line.takt: unknown key; remove it or check its spelling"


def test_no_camera(capsys: pytest.CaptureFixture[str], config_file: Path) -> None:
    head, rest = config_file.read_text().split("  - driver: simulated", 1)
    config_file.write_text(
        f"{head}  - {{driver: pylon, emulated: true, serial: 'NOPE'}}\n{rest[rest.index('trigger:') :]}"
    )
    assert "NOPE" in refused(capsys, "run", "--headless", "--config", config_file)
    config_file.write_text(f"{head}  - {{driver: replay, folder: none}}\n{rest[rest.index('trigger:') :]}")
    assert "none" in refused(capsys, "run", "--headless", "--config", config_file)


def test_a_picture_that_would_eat_the_memory(tmp_path: Path, config_file: Path) -> None:
    """1.2 GB, which OpenCV would still take; the limit must be set before it is imported: in a process."""
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "bomb.png").write_bytes(announced_png(20_000, 20_000))
    head, rest = config_file.read_text().split("  - driver: simulated", 1)
    config_file.write_text(
        f"{head}  - {{driver: replay, folder: pictures}}\n{rest[rest.index('trigger:') :]}"
    )
    command = [sys.executable, "-m", "station.cli", "run", "--headless", "--config", str(config_file)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 2
    assert "bomb.png: announces more pixels than can be decoded" in run.stderr.splitlines()[-1]


def test_read_only_database_folder(
    capsys: pytest.CaptureFixture[str], config_file: Path, read_only_folder: Path
) -> None:
    change(config_file, "data_dir: station-data", f"data_dir: {read_only_folder}")
    said = refused(capsys, "run", "--headless", "--config", config_file)
    assert str(read_only_folder) in said
    assert "write access" in said


def damage(path: Path, at: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(len(data) * at)] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("what", "harm"),
    [
        ("missing", lambda path: path.unlink()),
        ("damaged head", lambda path: damage(path, 0.0)),
        ("damaged weights", lambda path: damage(path, 0.7)),
        ("cut short", lambda path: path.write_bytes(path.read_bytes()[:-100])),
        ("not a bundle", lambda path: path.write_text("hello")),
        ("no trusted key", lambda path: (path.parent / "demo.pub").unlink()),
    ],
)
def test_a_bundle_that_is_not_what_was_signed(
    capfd: pytest.CaptureFixture[str], config_file: Path, what: str, harm: Callable[[Path], None]
) -> None:
    model = config_file.parent / "model.safetensors"
    shutil.copy(DEMO_MODEL, model)
    shutil.copy(DEMO_MODEL.with_name("demo.pub"), model.parent)
    change(config_file, "bundle: demo", "bundle: model.safetensors")
    harm(model)
    assert main(["run", "--headless", "--parts", "1", "--config", str(config_file)]) == 2
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("station: ")]
    assert len(said) == 1, what
    assert model.name in said[0]


def test_training_on_what_is_no_training_set(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    good, out = tmp_path / "good", tmp_path / "model.safetensors"

    def train() -> str:
        keys = tmp_path / "keys"
        return refused(
            capsys, "train", "--good", good, "--recipe", "r", "--out", out, "--keys", keys, "--steps", "2"
        )

    assert "good" in train()  # no folder
    good.mkdir()
    assert "good" in train()  # an empty one
    for number in range(40):
        picture(good / f"{number}.png", number)
    (good / "7.png").write_bytes(b"not a picture")
    assert "7.png" in train()
    (good / "7.png").write_bytes((good / "8.png").read_bytes()[:200])
    assert "7.png" in train()
    assert not out.exists()
    assert not list(tmp_path.glob("*.tmp"))


def test_evaluating_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert str(tmp_path / "none") in refused(capsys, "evaluate", tmp_path / "none")
    weights = tmp_path / "w.safetensors"
    for number in range(40):
        picture(tmp_path / f"set/train/good/{number}.png", number)
    picture(tmp_path / "set/test/good/1.png")
    picture(tmp_path / "set/test/bad/1.png")
    said = refused(capsys, "evaluate", tmp_path / "set", "--tokenizer", "resnet18", "--weights", weights)
    assert "w.safetensors" in said


def test_report_without_a_record(capsys: pytest.CaptureFixture[str], config_file: Path) -> None:
    assert "'docx'" in refused(capsys, "report", "--format", "docx", "--config", config_file)
    assert "station.db" in refused(
        capsys, "report", "--last-shift", "--format", "csv", "--config", config_file
    )


def test_demo_only_on_the_simulated_camera(capsys: pytest.CaptureFixture[str], config_file: Path) -> None:
    assert "seed" in refused(capsys, "demo", "--headless", "--seed", "-1", "--config", config_file)
    change(config_file, "driver: simulated         #", "driver: replay #")
    head, rest = config_file.read_text().split("  - driver: replay", 1)
    config_file.write_text(f"{head}  - {{driver: replay, folder: none}}\n{rest[rest.index('trigger:') :]}")
    assert "'replay'" in refused(capsys, "demo", "--headless", "--config", config_file)


@pytest.mark.slow
def test_demo_prints_its_figures_and_reports_from_its_record(config_file: Path) -> None:
    demo = [
        sys.executable,
        "-W",
        "error",
        "-m",
        "station.cli",
        "demo",
        "--headless",
        "--parts",
        "24",
        "--seed",
        "7",
        "--json",
    ]
    done = subprocess.run(
        [*demo, "--config", config_file], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    keys = (
        "triggered pass recheck reject not_inspected rows image_auroc escapes overkill latency_ms parts_per_s"
    )
    assert set(keys.split()) <= set(figures)
    verdicts = ("pass", "recheck", "reject", "not_inspected")
    assert figures["triggered"] == sum(figures[key] for key in verdicts) == figures["rows"] == 24
    assert figures["image_auroc"] > 0.8
    assert set(figures["latency_ms"]) == {"p50", "p95", "p99"}
    report = [
        sys.executable,
        "-m",
        "station.cli",
        "report",
        "--current-shift",
        "--format",
        "csv,html",
        "--out",
    ]
    out = config_file.parent / "reports"
    done = subprocess.run(
        [*report, out, "--config", config_file], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    assert {path.suffix for path in out.iterdir()} == {".csv", ".html"}


@pytest.mark.slow
def test_serve_stops_in_order_on_sigterm(config_file: Path) -> None:
    serve = [sys.executable, "-m", "station.cli", "--verbose", "serve", "--config", config_file]
    process = subprocess.Popen(serve, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    from station.client import LineSubscriber
    from station.config import load_config
    from station.types import EngineState, StatusMessage

    publishing = load_config(config_file).publishing
    with LineSubscriber(publishing.host, publishing.port) as line:
        running = False
        for _ in range(600):
            messages = [m for m in line.receive(100) if isinstance(m, StatusMessage)]
            running = any(m.state is EngineState.RUNNING and m.ledger.rows >= 3 for m in messages)
            if running or process.poll() is not None:
                break
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[1]
    assert running, said
    assert process.returncode == 0, said
    assert "SIGTERM received; triggered" in said.splitlines()[-1]
    assert "0 in flight" in said.splitlines()[-1]


def test_an_altered_record_is_told_by_report_and_doctor(
    capsys: pytest.CaptureFixture[str], config_file: Path
) -> None:
    from station.config import load_config
    from station.engine import Engine

    config = load_config(config_file)
    engine = Engine(config, parts=3, cameras=[ScriptedCamera([(50, 0, 0)])], command=STAND_IN)
    engine.start()
    assert engine.done.wait(30)
    engine.stop("done")
    report = ["report", "--current-shift", "--format", "csv", "--config", str(config_file)]
    assert main(report) == 0
    data = config.database_path.read_bytes()
    assert b"below limit" in data
    config.database_path.write_bytes(data.replace(b"below limit", b"BELOW LIMIT", 1))
    capsys.readouterr()
    assert main(report) == 1
    assert "the record was altered: part: row" in capsys.readouterr().err
    assert main(["doctor", "--config", str(config_file)]) == 1
    assert "fail  record     part: row" in capsys.readouterr().out


@pytest.mark.parametrize("wait_s", [1.0, 2.0])
def test_a_signal_while_starting_is_a_clean_stop(config_file: Path, wait_s: float) -> None:
    serve = [sys.executable, "-m", "station.cli", "serve", "--config", str(config_file)]
    process = subprocess.Popen(serve, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    database = config_file.parent / "station-data" / "station.db"
    while not database.exists() and process.poll() is None:
        time.sleep(0.02)
    time.sleep(wait_s)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 0, said
    assert "Traceback" not in said


def test_no_screen_without_a_display(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, config_file: Path
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    assert "no display here" in refused(capsys, "ui", "--config", config_file)
