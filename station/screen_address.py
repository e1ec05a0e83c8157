"""Where a screen finds its line, and with which keys: from the configuration, or as it is told."""

from pathlib import Path
from typing import NamedTuple

from station.client import ScreenKeys
from station.config import StationConfig
from station.sections import is_loopback
from station.wire_keys import KeysError, read_screen_keys


class ScreenAddress(NamedTuple):
    """Host, first port and keys, as `station.client` takes them."""

    host: str
    port: int
    keys: ScreenKeys | None


def screen_address(config: StationConfig, connect: str | None, keys: Path | None) -> ScreenAddress:
    """Where to connect to.

    Args:
        config: of the line.
        connect: `HOST[:PORT]` instead of what it says.
        keys: folder of this screen's keys instead of what it says.

    Raises:
        KeysError: another machine is to be reached without keys, the keys cannot be read, or `connect` is no
            address.
    """
    host, port = config.publishing.host, config.publishing.port
    if connect is not None:
        host, colon, digits = connect.partition(":")
        if not host or (colon and not (digits.isascii() and digits.isdigit() and 0 < int(digits) < 65_534)):
            raise KeysError(f"--connect {connect!r}: expected HOST or HOST:PORT, e.g. 192.168.0.30:17800")
        port = int(digits) if digits else port
    folder = keys or (config.publishing.keys if connect is None or is_loopback(host) else None)
    if folder is None and not is_loopback(host):
        raise KeysError(f"{host}: a line on another machine asks for keys; add --keys FOLDER")
    return ScreenAddress(host, port, read_screen_keys(folder) if folder else None)
