"""The support bundle: what helps is in it, what is nobody's business is not, however broken the station."""

import json
import os
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from line_runs import PASS, REJECT, run_line, wait_until
from scripted_line import ROOT, STAND_IN, ScriptedCamera, free_port, line_config

from station.engine import Engine
from station.support_bundle import redact, write_bundle

PRIVATE = b"-----BEGIN PRIVATE KEY-----\nsigned by me alone\n-----END PRIVATE KEY-----\n"
IMAGES = (".png", ".jpg")


def station(tmp_path: Path, port: int | None = None) -> Path:
    """A configuration whose model is missing, so that doctor answers at once, and keys beside it."""
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "station.ed25519").write_bytes(PRIVATE)
    (keys / "station.pub").write_bytes(b"public half\n")
    text = (ROOT / "config.yaml").read_text()
    text = text.replace("port: 17800", f"port: {port or free_port()}").replace(
        "data_dir: station-data", "data_dir: data"
    )
    text = text.replace("bundle: demo", "bundle: keys/none.safetensors\n  trusted_keys: keys")
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return path


def line(tmp_path: Path, port: int | None = None) -> Engine:
    changes: dict[str, dict[str, object]] = {"publishing": {"port": port}} if port else {}
    config = line_config(tmp_path / "data", record={"pass_image_every": 1}, **changes)
    return Engine(
        config, parts=None if port else 6, cameras=[ScriptedCamera([PASS, REJECT])], command=STAND_IN
    )


def read(bundle: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(bundle) as file:
        assert file.testzip() is None
        return {name: file.read(name) for name in file.namelist()}


def test_what_helps_is_in_it_and_no_picture_and_no_key(tmp_path: Path, no_leaks: None) -> None:
    config = station(tmp_path)
    engine = line(tmp_path)
    run_line(engine)
    target = tmp_path / "support.zip"
    assert write_bundle(config, target) == []
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    inside = read(target)
    assert {"config.yaml", "versions.json", "doctor.txt", "systemd.txt", "figures.json"} <= set(inside)
    parts = [json.loads(row) for row in inside["record/parts.jsonl"].splitlines()]
    assert [part["part_seq"] for part in parts] == [1, 2, 3, 4, 5, 6]
    (run,) = json.loads(inside["figures.json"]).values()
    assert run["verdicts"] == {"PASS: below limit": 3, "REJECT: above reject limit": 3}
    assert len(inside["record/runs.jsonl"].splitlines()) == 1
    assert b"ready: stand-in" in inside["logs/worker.jsonl"]
    assert "varad-station" in json.loads(inside["versions.json"])["packages"]
    assert b"ok    record     6 parts recorded" in inside["doctor.txt"]
    assert b"fail  model" in inside["doctor.txt"]
    assert not [name for name in inside if name.endswith(IMAGES) or "key" in name]
    assert not [name for name, content in inside.items() if b"PRIVATE" in content or b"\x89PNG" in content]
    assert not list(tmp_path.glob("*.tmp"))


def test_pictures_and_public_keys_go_in_only_when_asked_for_and_private_keys_never(tmp_path: Path) -> None:
    config = station(tmp_path)
    run_line(line(tmp_path))
    (tmp_path / "keys" / "mistaken.pub").write_bytes(PRIVATE)
    target = tmp_path / "support.zip"
    (missing,) = write_bundle(config, target, images=2, keys=True)
    assert missing.startswith("keys/mistaken.pub: ValueError: holds a private key")
    inside = read(target)
    assert len([name for name in inside if name.endswith(IMAGES)]) == 2
    assert inside["keys/station.pub"] == b"public half\n"
    assert not [name for name, content in inside.items() if b"BEGIN PRIVATE" in content]


def test_it_works_beside_a_running_line(tmp_path: Path) -> None:
    port = free_port()
    config = station(tmp_path, port)
    engine = line(tmp_path, port)
    engine.start()
    try:
        wait_until(lambda: engine.ledger.snapshot().rows > 3)
        command = [sys.executable, "-m", "station.cli", "support-bundle", "--config", str(config)]
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment()
        )
        assert (done.returncode, done.stderr) == (0, "")
    finally:
        account = engine.stop("done")
    assert account.triggered == account.rows
    (bundle,) = tmp_path.glob("support-*.zip")
    inside = read(bundle)
    assert inside["doctor.txt"].count(b"the line seems to be running") == 3
    assert len(inside["record/parts.jsonl"].splitlines()) > 3


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))}


@pytest.mark.parametrize("damage", ["not a database", "pages", "gone"])
def test_it_works_when_the_record_is_damaged(tmp_path: Path, damage: str) -> None:
    config = station(tmp_path)
    run_line(line(tmp_path))
    database = tmp_path / "data" / "station.db"
    if damage == "gone":
        database.unlink()
    elif damage == "pages":
        with database.open("r+b") as file:
            file.seek(4096)
            file.write(os.urandom(database.stat().st_size - 4096))
    else:
        database.write_bytes(b"not a database at all " * 1000)
    missing = write_bundle(config, tmp_path / "support.zip")
    inside = read(tmp_path / "support.zip")
    assert any(line.startswith("record/parts.jsonl: Record") for line in missing)
    assert inside["missing.txt"].decode().splitlines() == missing
    assert b"ready: stand-in" in inside["logs/worker.jsonl"]
    assert b"record " in inside["doctor.txt"]


def test_it_works_when_the_configuration_is_broken_and_blacks_out_its_secrets(tmp_path: Path) -> None:
    config = station(tmp_path)
    config.write_text(config.read_text() + "mqtt: {host: a, password: geheim}\n")
    write_bundle(config, tmp_path / "support.zip")
    inside = read(tmp_path / "support.zip")
    assert b"unknown key" in inside["doctor.txt"]
    assert b"password: REDACTED" in inside["config.yaml"]
    assert not [name for name, content in inside.items() if b"geheim" in content]
    write_bundle(tmp_path / "none.yaml", tmp_path / "support.zip")
    assert b"cannot be read" in read(tmp_path / "support.zip")["doctor.txt"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mes:\n  api_token: abc\n  port: 1\n", "mes:\n  api_token: REDACTED\n  port: 1\n"),
        ("a:\n  password: |\n    x\n\n    y\nb: 1\n", "a:\n  password: REDACTED\nb: 1\n"),
        ("- secret:\n    deep: x\n- 2\n", "- secret: REDACTED\n- 2\n"),
        ('{"Passphrase": "x"}\n', '{"Passphrase": REDACTED\n'),
        ("url: opc://me:geheim@plc:48\n", "url: opc://me:REDACTED@plc:48\n"),
        (
            "model:\n  tokenizer: dino\n  trusted_keys: keys\n",
            "model:\n  tokenizer: dino\n  trusted_keys: keys\n",
        ),
    ],
)
def test_secrets_are_blacked_out_and_nothing_else(text: str, expected: str) -> None:
    assert redact(text) == expected


def test_a_bundle_that_cannot_be_written_is_said_in_one_line(tmp_path: Path) -> None:
    config = station(tmp_path)
    command = [sys.executable, "-m", "station.cli", "support-bundle", "--config", str(config)]
    command += ["--out", str(tmp_path / "nowhere" / "support.zip")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "cannot be written" in done.stderr
