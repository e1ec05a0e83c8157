"""The line as a process, with the model that ships: `station use-model`, and its file edited meanwhile."""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from line_runs import wait_until
from scripted_line import ROOT, free_port

from db.session import open_read_only
from station.cli import main
from station.client import CommandClient, CommandError
from station.config import DEMO_KEYS, DEMO_MODEL, load_config
from station.doctor_command import findings
from varad_core.bundle import ensure_signing_key, load_bundle, save_bundle


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Path]:
    """The configuration of a line that runs."""
    path, keys = tmp_path / "config.yaml", tmp_path / "keys"
    keys.mkdir()
    for public in DEMO_KEYS.glob("*.pub"):
        shutil.copy(public, keys / "demo.pub")
    text = (ROOT / "config.yaml").read_text().replace("port: 17800", f"port: {free_port()}")
    for old, new in (
        ("port: 17810", "port: 0"),
        ("threads: 0", "threads: 1"),
        ("_ms: 250 ", "_ms: 500 "),
        ("  # trusted_keys: keys", "  trusted_keys: keys"),
    ):
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    process = subprocess.Popen(
        [sys.executable, "-m", "station.cli", "serve", "--config", str(path)], cwd=ROOT
    )
    try:
        client = CommandClient("127.0.0.1", load_config(path).publishing.port, timeout_ms=500)
        while not answers(client):
            assert process.poll() is None, "the line did not start"
        client.close()
        yield path
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def answers(client: CommandClient) -> bool:
    try:
        return bool(client.send("model")["model"])
    except CommandError:
        time.sleep(0.1)
        return False


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_model_of_a_stranger_is_refused_and_one_of_ours_taken_while_the_file_is_edited(
    served: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = load_config(served)
    other, keys = served.parent / "other.safetensors", served.parent / "keys"
    bundle = load_bundle(DEMO_MODEL, None)
    manifest = {key: bundle.manifest[key] for key in set(bundle.manifest) - {"format", "versions"}}
    manifest["provenance"] = {**manifest["provenance"], "name": "other"}
    save_bundle(other, bundle.tensors, manifest, signing_key=ensure_signing_key(served.parent / "strangers"))

    assert ("line", ("ok", "runs with this configuration")) in list(findings(config, beside_line=True))
    use = ["use-model", str(other), "--user", "anna", "--config", str(served)]
    assert main(use) == 2
    assert "signed by unknown key" in capsys.readouterr().err
    model_id = save_bundle(other, bundle.tensors, manifest, signing_key=ensure_signing_key(keys))

    text = served.read_text()
    served.write_text(text.replace("lot: LOT-0001", "lot: LOT-0002"))
    state, said = dict(findings(load_config(served), beside_line=True))["line"]
    assert (state, said[:31]) == ("warn", "runs with another configuration")
    assert main(use) == 0
    said = capsys.readouterr().out
    assert f"to other {model_id}, until the line stops" in said
    assert f"model.bundle: {other}" in said
    served.write_text("this: [is no configuration\n")
    seen = count(config.database_path)
    wait_until(lambda: count(config.database_path) > seen + 3)

    rows = select(config.database_path, "SELECT lot, reason, model_id FROM part ORDER BY part_seq")
    assert {row.lot for row in rows} == {"LOT-0001"}, "what is edited counts from the next start"
    assert not {row.reason for row in rows} & {"worker down", "worker error"}, "no part lost its worker"
    assert rows[-1].model_id == model_id
    assert main(["run", "--headless", "--config", str(served)]) == 2, "and then it must be right"


def count(database_path: Path) -> int:
    return int(select(database_path, "SELECT count(*) AS parts FROM part")[0].parts)


def select(database_path: Path, sql: str) -> list[Any]:
    database = open_read_only(database_path)
    with database.connect() as connection:
        rows = list(connection.exec_driver_sql(sql).all())
    database.close()
    return rows
