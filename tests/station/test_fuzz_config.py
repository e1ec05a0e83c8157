"""Whatever the configuration file holds: a valid configuration or one line that names the place."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scripted_line import ROOT

from station.config import StationConfig, load_config
from station.yaml_source import MAX_BYTES, ConfigError
from tests.fuzzing import bounded, examples, is_one_line, mutations

pytestmark = pytest.mark.fuzz

SHIPPED = (ROOT / "config.yaml").read_bytes()
Load = Callable[[bytes], StationConfig | None]

WORDS = st.sampled_from(
    (
        *("0", "-1", "1e999", "1e-999", "9e15", "007", "0x10", "12:30", "2026-11-24", ".nan", "-.inf"),
        *("no", "~", "null", "true", "''", '"\\n"', '"\\0"', "[]", "{}", "[1]", "{a: 1}", "{driver: modbus}"),
        *("|", ">", "&a", "*a", "!", "%", "@", "?", "-", ":", "/dev/zero", "../..", "~root", "\U0001f600"),
    )
) | st.text(max_size=12)
LINES = [line.split("#")[0].rstrip() for line in SHIPPED.decode().splitlines() if ":" in line.split("#")[0]]


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    path = tmp_path_factory.mktemp("fuzz") / "config.yaml"

    def read(content: bytes) -> StationConfig | None:
        path.write_bytes(content)
        with bounded():
            try:
                return load_config(path)
            except ConfigError as error:
                assert is_one_line(error), repr(str(error))
                assert str(error).startswith(f"{path}:")
                return None

    return read


@examples(300)
@given(content=st.binary(max_size=400))
def test_bytes(load: Load, content: bytes) -> None:
    assert load(content) is None


@examples(100)
@given(content=mutations(SHIPPED))
@example(content=SHIPPED.replace(b"seed: 1 ", b"seed: " + b"9" * 5000))
@example(content=SHIPPED.replace(b"transfer_ms: 5 ", b"transfer_ms: 1e999 "))
@example(content=b'"a\\nb": 1\n')
def test_a_damaged_file(load: Load, content: bytes) -> None:
    load(content)


@st.composite
def edited(draw: st.DrawFn) -> bytes:
    """The shipped file, but some keys have other values, and some lines stand elsewhere."""
    lines = list(LINES)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(lines) - 1))
        key = lines[at].split(":")[0]
        lines[at] = f"{key}: {draw(WORDS)}"
        if draw(st.booleans()):
            lines.insert(draw(st.integers(0, len(lines))), lines.pop(at))
    return "\n".join(lines).encode("utf-8", "surrogatepass")


@examples(100)
@given(content=edited())
def test_other_values(load: Load, content: bytes) -> None:
    config = load(content)
    if config is not None:
        assert config == StationConfig.model_validate(config.model_dump())
        assert config.model_dump_json()


@pytest.mark.parametrize(
    "opening", [b"[", b"{", b"- ", b"? ", b"a: {", b"!!x ", b"&a ", b'"', b"'", b"|\n", b"\r"]
)
def test_much_of_the_same(load: Load, opening: bytes) -> None:
    assert load(opening * (5_000 // len(opening))) is None


def test_a_file_too_large_is_not_parsed(load: Load) -> None:
    assert load(b"#" * (MAX_BYTES + 1)) is None


def test_a_file_without_an_end_is_not_read_to_it() -> None:
    with bounded(), pytest.raises(ConfigError, match="is this the right file"):
        load_config(Path("/dev/zero"))
