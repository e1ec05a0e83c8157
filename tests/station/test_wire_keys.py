"""Screens on other machines: whom the line lets in, on real sockets, and how the keys are made."""

import json
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import zmq
from published_line import PublishedLine
from scripted_line import ROOT, free_port

from station.cli import main
from station.client import (
    COMMAND_OFFSET,
    EVENT_OFFSET,
    PREVIEW_OFFSET,
    CommandClient,
    CommandError,
    LineSubscriber,
    ScreenKeys,
    endpoint,
)
from station.config import load_config
from station.doctor_command import _keys
from station.screen_address import screen_address
from station.types import Preview, StatusMessage, VerdictMessage
from station.wire_keys import (
    KeysError,
    make_line_keys,
    make_screen_keys,
    read_line_keys,
    read_screen_keys,
    readable_by_others,
)
from station.yaml_source import ConfigError

HOST = "127.0.0.1"
SHIPPED = (ROOT / "config.yaml").read_text()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_line_keys(tmp_path / "keys")
    return tmp_path / "keys"


def heard(port: int, keys: ScreenKeys | None, seconds: float, wanted: int = 3) -> set[type]:
    """The kinds of messages that arrive, until there are so many kinds."""
    kinds: set[type] = set()
    with LineSubscriber(HOST, port, keys) as line:
        give_up_s = time.monotonic() + seconds
        while len(kinds) < wanted and time.monotonic() < give_up_s:
            kinds |= {type(message) for message in line.receive(50)}
    return kinds


def command(port: int, keys: ScreenKeys | None, name: str, timeout_ms: int) -> bool:
    client = CommandClient(HOST, port, timeout_ms, keys)
    try:
        return bool(client.send(name)["ok"])
    except CommandError:
        return False
    finally:
        client.close()


def test_a_known_key_opens_all_three_ports_and_any_other_none(
    folder: Path, tmp_path: Path, no_leaks: None
) -> None:
    local = read_screen_keys(folder)
    panel = read_screen_keys(make_screen_keys(folder, "panel"))
    make_line_keys(tmp_path / "strangers")
    stranger = read_screen_keys(tmp_path / "strangers")
    strangers = {
        "no key": None,
        "another line's key": stranger,
        "a key that was never let in": ScreenKeys(local.server_public, stranger.public, stranger.secret),
        "a known public half with another secret": ScreenKeys(
            local.server_public, local.public, stranger.secret
        ),
        "another line": ScreenKeys(stranger.server_public, local.public, local.secret),
    }
    port = free_port()
    with PublishedLine(port=port, keys=folder) as line:
        for who, keys in strangers.items():
            assert heard(port, keys, 0.4, wanted=1) == set(), who
            assert not command(port, keys, f"shutdown by {who}", 300), who
        for keys in (local, panel):
            assert heard(port, keys, 20) == {StatusMessage, VerdictMessage, Preview}
            assert command(port, keys, "start", 10_000)
        assert line.commands == [("start", {})] * 2


def test_a_screen_is_let_in_and_shut_out_while_the_line_runs(folder: Path, no_leaks: None) -> None:
    port = free_port()
    with PublishedLine(port=port, keys=folder):
        panel = read_screen_keys(make_screen_keys(folder, "panel"))
        assert command(port, panel, "start", 10_000)
        allowed = folder / "screens" / "panel.public"
        kept = allowed.read_text()
        allowed.unlink()
        assert not command(port, panel, "start", 300)
        with LineSubscriber(HOST, port, panel) as waiting:
            assert waiting.receive(300) == []
            allowed.write_text(kept)
            assert waiting.receive(20_000) != [], (
                "who was turned away is let in, and nobody restarts anything"
            )
        (folder / "screens" / "damaged.public").write_text("no key")
        assert command(port, read_screen_keys(folder), "start", 10_000), "others' files are others'"


def test_strangers_that_knock_at_every_port_do_not_keep_a_screen_waiting(
    folder: Path, no_leaks: None
) -> None:
    port = free_port()
    context = zmq.Context()
    with PublishedLine(port=port, keys=folder) as line:
        sockets = []
        for offset in (PREVIEW_OFFSET, EVENT_OFFSET, COMMAND_OFFSET) * 5:
            knocking = context.socket(zmq.REQ if offset == COMMAND_OFFSET else zmq.SUB)
            knocking.setsockopt(zmq.RECONNECT_IVL, 1)
            knocking.setsockopt(zmq.LINGER, 0)
            if offset == COMMAND_OFFSET:
                knocking.connect(endpoint(HOST, port, offset))
                knocking.send(b'{"command": "shutdown"}')
            else:
                knocking.setsockopt(zmq.SUBSCRIBE, b"")
                knocking.connect(endpoint(HOST, port, offset))
            sockets.append(knocking)
        for offset in (PREVIEW_OFFSET, EVENT_OFFSET, COMMAND_OFFSET):
            with socket.create_connection((HOST, port + offset)) as plain:
                plain.sendall(b"GET / HTTP/1.1\r\n\r\n" + bytes(range(256)))
        assert heard(port, read_screen_keys(folder), 20) == {StatusMessage, VerdictMessage, Preview}
        assert command(port, read_screen_keys(folder), "start", 10_000)
        assert line.commands == [("start", {})]
        context.destroy(linger=0)


def test_a_screen_in_another_process_with_the_carried_folder(folder: Path, tmp_path: Path) -> None:
    carried = make_screen_keys(folder, "panel").rename(tmp_path / "carried")
    port = free_port()
    program = """
import sys
from pathlib import Path
from station.client import CommandClient
from station.wire_keys import read_screen_keys
print(CommandClient("127.0.0.1", int(sys.argv[1]), 10_000, read_screen_keys(Path(sys.argv[2]))).send("pause"))
"""
    with PublishedLine(port=port, keys=folder) as line:
        arguments = [sys.executable, "-c", program, str(port), str(carried)]
        screen = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
        assert "'ok': True" in screen.stdout
        assert line.commands == [("pause", {})]


def test_a_line_whose_keys_are_missing_or_damaged_does_not_open(folder: Path, no_leaks: None) -> None:
    for harm in (lambda path: path.write_text("00" * 31), lambda path: path.unlink()):
        harm(folder / "server.secret")
        line = PublishedLine(port=free_port(), keys=folder)
        line.stage.start()
        line.stage.join(20)
        assert "server.secret" in str(line.stage.open_error)
        assert "station keys" in str(line.stage.open_error)
        line.stage.close()


def test_without_keys_only_this_machine_can_reach_the_sockets(no_leaks: None) -> None:
    """As configured by default; the kernel says what they are bound to."""
    port = free_port()
    with PublishedLine(port=port):
        listening = [line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        bound = {address for address in listening if int(address.split(":")[1], 16) in range(port, port + 3)}
    assert bound == {f"0100007F:{port + offset:04X}" for offset in range(3)}


@pytest.mark.parametrize("host", ["0.0.0.0", "'*'", "192.168.0.30", "eth0", "station.local", "'::'"])
def test_other_addresses_need_keys(tmp_path: Path, host: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        SHIPPED.replace("  host: 127.0.0.1             # address the s", f"  host: {host} # address the s")
    )
    line = next(
        n for n, text in enumerate(path.read_text().splitlines(), 1) if "# address the screens" in text
    )
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(caught.value) == (
        f"{path}:{line}:3: publishing.host: {host if host[0] == chr(39) else repr(host)} lets other machines "
        "command this line and needs keys: run `station keys FOLDER` and set publishing.keys to that folder, "
        "or use 127.0.0.1"
    )
    path.write_text(path.read_text().replace("  # keys: keys/screens ", "  keys: keys/screens "))
    assert load_config(path).publishing.keys == tmp_path / "keys" / "screens"


def test_a_screen_whose_keys_were_carried_away_is_not_shut_out_by_making_them_again(tmp_path: Path) -> None:
    folder = tmp_path / "k"
    make_line_keys(folder)
    make_screen_keys(folder, "panel").rename(tmp_path / "carried")
    public = (folder / "screens" / "panel.public").read_text()
    with pytest.raises(KeysError, match="has its keys already"):
        make_screen_keys(folder, "panel")
    assert (folder / "screens" / "panel.public").read_text() == public
    assert "secret" not in repr(read_line_keys(folder))


def test_keys_are_made_once_are_their_owners_alone_and_are_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "k"
    assert main(["keys", str(folder)]) == 0
    assert main(["keys", str(folder), "--screen", "panel-2"]) == 0
    said = capsys.readouterr().out
    assert "publishing.keys" in said
    assert f"{folder / 'panel-2'}: move this folder" in said
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    assert set(files) == {
        "server.secret", "server.public", "screen.secret", "screens/local.public", "screens/panel-2.public",
        "panel-2/screen.secret", "panel-2/server.public",
    }  # fmt: skip
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for name, path in files.items() if "secret" in name)
    before = {name: path.read_text() for name, path in files.items()}
    assert len(set(before.values())) == 6, "server.public is there twice, everything else is of its own"
    assert main(["keys", str(folder), "--screen", "panel-2"]) == 0
    assert {name: path.read_text() for name, path in files.items()} == before
    for name in ("", "../x", "a/b", "screens", "local", "x" * 41):
        assert main(["keys", str(folder), f"--screen={name}"]) == (0 if not name else 2)
    (folder / "server.secret").write_text("short")
    assert main(["keys", str(folder)]) == 2
    assert "server.secret: not 64 hexadecimal digits" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert main(["keys", str(tmp_path / "file")]) == 2


def test_the_doctor_says_who_is_let_in_and_which_keys_others_can_read(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(SHIPPED)
    assert _keys(load_config(path)) == ("ok", "none configured: only this machine reaches 127.0.0.1")
    path.write_text(SHIPPED.replace("  # keys: keys/screens ", "  keys: keys "))
    config = load_config(path)
    carried = make_screen_keys(folder, "panel")
    assert _keys(config) == ("ok", f"{folder}: lets in local, panel")
    for exposed in (folder / "server.secret", carried / "screen.secret"):
        exposed.chmod(0o640)
        assert readable_by_others(folder) == [exposed]
        assert _keys(config) == (
            "fail", f"{exposed} can be read by others; chmod 600, or make new keys if they have"
        )  # fmt: skip
        exposed.chmod(0o600)
    (folder / "server.secret").unlink()
    assert _keys(config)[0] == "fail"


def test_where_a_screen_connects_to(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(SHIPPED)
    config = load_config(path)
    assert screen_address(config, None, None) == (HOST, 17800, None)
    assert screen_address(config, "localhost:5000", None) == ("localhost", 5000, None)
    keys = read_screen_keys(folder)
    assert screen_address(config, "192.168.0.30", folder) == ("192.168.0.30", 17800, keys)
    for connect, folder_given, message in (
        ("192.168.0.30", None, "192.168.0.30: a line on another machine asks for keys"),
        ("192.168.0.30:x", folder, "expected HOST or HOST:PORT"),
        (":1", folder, "expected HOST or HOST:PORT"),
        ("a:65534", folder, "expected HOST or HOST:PORT"),
        (None, tmp_path / "none", "server.public|screen.secret"),
    ):
        with pytest.raises(KeysError, match=message):
            screen_address(config, connect, folder_given)
    path.write_text(SHIPPED.replace("  # keys: keys/screens ", "  keys: keys "))
    assert screen_address(load_config(path), None, None).keys == keys


def test_what_the_line_needs_to_know_is_in_its_folder(folder: Path) -> None:
    line, screen = read_line_keys(folder), read_screen_keys(folder)
    assert line.allows(screen.public)
    assert not line.allows(screen.server_public)
    assert json.dumps(sorted(path.name for path in folder.iterdir())) == (
        '["screen.secret", "screens", "server.public", "server.secret"]'
    )
