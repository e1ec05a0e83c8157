"""Read one small YAML document strictly, and remember where each value stands.

YAML 1.1 turns `no` into False, `12:30:00` into 45000 and `010` into 8, merges, aliases and executes tags. A
line's configuration wants none of that: what is ambiguous is refused with its place, and must be quoted.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

MAX_BYTES = 100_000  # ten times the shipped file; PyYAML takes seconds for that
MAX_DEPTH = 12
_MAX_DIGITS = 40

_AMBIGUOUS = re.compile(
    r"^(?:y|Y|yes|Yes|YES|n|N|no|No|NO|on|On|ON|off|Off|OFF"  # booleans in YAML 1.1, words to a person
    r"|[-+]?0[0-9]+|0[xob][0-9a-fA-F_]+|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?"  # octal, base 60
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}.*)$"
)
_NUMBER = re.compile(r"^[-+]?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?$")

Location = tuple[str | int, ...]


class ConfigError(Exception):
    """The configuration cannot be used; the message is `file:line:column: where: what is wrong`."""


@dataclass(frozen=True, slots=True)
class YamlDocument:
    """A parsed document: plain values, and (line, column), 1-based, of every key and value by its
    location."""

    path: Path
    values: Any
    places: dict[Location, tuple[int, int]]

    def error(self, location: Location, message: str) -> ConfigError:
        """A ConfigError at `location`, or at the nearest place above it that the file holds."""
        known = location
        while known and known not in self.places:
            known = known[:-1]
        line, column = self.places.get(known, (1, 1))
        dotted = ".".join(str(part) for part in location)
        text = _printable(f"{dotted}: {message}" if dotted else message)
        return ConfigError(f"{self.path}:{line}:{column}: {text}")


class _StrictLoader(yaml.SafeLoader):
    """Refuses while it reads: composing deep nesting would take time with its third power."""

    def __init__(self, text: str, path: Path) -> None:
        super().__init__(text)
        self._path = path
        self._depth = 0

    def get_event(self) -> Any:
        event: Any = super().get_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            problem = "anchors and aliases are not allowed; write the value out"
        elif tag := getattr(event, "tag", None):
            problem = f"tag {tag!r} is not allowed; write the plain value"
        else:
            self._depth += isinstance(event, yaml.CollectionStartEvent)
            self._depth -= isinstance(event, yaml.CollectionEndEvent)
            if self._depth <= MAX_DEPTH:
                return event
            problem = f"nested deeper than {MAX_DEPTH} levels"
        raise _at(self._path, event.start_mark, problem)


def read_yaml(path: Path) -> YamlDocument:
    """Parse the file at `path`.

    Raises:
        ConfigError: missing, too large, not UTF-8, damaged, empty, ambiguous, with duplicate keys, tags or
            aliases.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}); give another file with --config"
        ) from error
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{path}: more than {MAX_BYTES} bytes; is this the right file?")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"{path}:{line}:1: byte {data[error.start]:#04x} is not UTF-8; save the file as UTF-8"
        ) from error
    for number, content in enumerate(text.splitlines(), start=1):
        indent = content[: len(content) - len(content.lstrip())]
        if "\t" in indent:
            raise ConfigError(
                f"{path}:{number}:{indent.index(chr(9)) + 1}: tab in the indentation; use spaces"
            )
    try:
        node = _StrictLoader(text, path).get_single_node()
    except yaml.MarkedYAMLError as error:
        problem = " ".join(str(part) for part in (error.problem, error.context) if part)
        raise _at(path, error.problem_mark or error.context_mark, problem) from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError(f"{path}: not YAML ({' '.join(str(error).split())})") from error
    if node is None:
        raise ConfigError(f"{path}:1:1: the file is empty; copy the shipped config.yaml")
    places: dict[Location, tuple[int, int]] = {}
    values = _construct(path, node, (), places)
    return YamlDocument(path, values, places)


def _at(path: Path, mark: Any, message: str) -> ConfigError:
    if mark is None:
        return ConfigError(f"{path}: {_printable(message)}")
    return ConfigError(f"{path}:{mark.line + 1}:{mark.column + 1}: {_printable(message)}")


def _printable(text: str) -> str:
    """One line for a terminal, whatever the file's keys and values are made of."""
    return "".join(character if character.isprintable() else " " for character in text)


def _construct(
    path: Path, node: yaml.Node, location: Location, places: dict[Location, tuple[int, int]]
) -> Any:
    places[location] = (node.start_mark.line + 1, node.start_mark.column + 1)
    if isinstance(node, yaml.ScalarNode):
        return _scalar(path, node)
    if isinstance(node, yaml.SequenceNode):
        return [_construct(path, child, (*location, index), places) for index, child in enumerate(node.value)]
    mapping: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = key_node.value
        if not isinstance(key_node, yaml.ScalarNode) or not isinstance(key, str):
            raise _at(path, key_node.start_mark, "a key must be a plain word")
        if key in mapping:
            raise _at(path, key_node.start_mark, f"duplicate key {key!r}; keep one of the two")
        mapping[key] = _construct(path, value_node, (*location, key), places)
        # An unknown or wrong entry is looked for at its key, not behind it.
        places[(*location, key)] = (key_node.start_mark.line + 1, key_node.start_mark.column + 1)
    return mapping


def _scalar(path: Path, node: yaml.ScalarNode) -> str | int | float | bool | None:
    text: str = node.value
    if node.style is not None:  # quoted or block: text, whatever it looks like
        return text
    if _AMBIGUOUS.match(text):
        raise _at(
            path,
            node.start_mark,
            f"{text} is ambiguous in YAML; quote it ('{text}') or write true, false or a plain number",
        )
    if text in ("", "~", "null"):
        return None
    if text in ("true", "false"):
        return text == "true"
    if _NUMBER.match(text):
        if len(text) > _MAX_DIGITS or not math.isfinite(float(text)):
            raise _at(
                path,
                node.start_mark,
                f"{text[:_MAX_DIGITS]}... is too long a number; quote it, or correct it",
            )
        return int(text) if text.lstrip("+-").isdigit() else float(text)
    return text
