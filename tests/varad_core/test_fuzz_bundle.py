"""Whatever a model file holds: the model that was signed, or one line that says why there is none."""

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors.torch import save

from tests.fuzzing import bounded, examples, is_one_line, mutations
from varad_core.bundle import Bundle, ensure_signing_key, load_bundle, save_bundle
from varad_core.inspector import Inspector
from varad_core.types import BundleError

pytestmark = pytest.mark.fuzz

Load = Callable[[bytes], Bundle | None]
TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.zeros(2, dtype=torch.float16), "n": torch.tensor(3)}
SIZES = st.sampled_from((0, 1, 8, 100, 2**31, 2**32, 2**40, 2**63 - 1, 2**64 - 1))
DTYPES = st.sampled_from(
    ("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F6_E2M3", "F4", "I16", "U16", "F16", "BF16", "I32",
     "U32", "F32", "F64", "I64", "U64", "C64", "X", "")
)  # fmt: skip


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, keys: Path) -> Path:
    path = tmp_path_factory.mktemp("fuzz") / "small.safetensors"
    save_bundle(path, TENSORS, {"name": "x"}, signing_key=ensure_signing_key(keys))
    return path


@pytest.fixture(scope="module")
def load(small: Path, keys: Path) -> Load:
    signed = small.read_bytes()
    path = small.with_name("other.safetensors")

    def read(data: bytes) -> Bundle | None:
        path.write_bytes(data)
        with bounded():
            try:
                bundle = load_bundle(path, keys)
            except BundleError as error:
                assert is_one_line(error), repr(str(error))
                assert str(path) in str(error)
                return None
        whole = load_bundle(small, keys)
        assert bundle.model_id == whole.model_id, "something else was taken for what was signed"
        assert bundle.manifest == whole.manifest
        assert set(bundle.tensors) == set(whole.tensors)
        assert all(torch.equal(bundle.tensors[name], tensor) for name, tensor in whole.tensors.items())
        return bundle

    assert read(signed) is not None
    return read


@examples(100)
@given(data=st.binary(max_size=200))
def test_bytes(load: Load, data: bytes) -> None:
    assert load(data) is None


@examples(100)
@given(data=st.data())
def test_a_damaged_file(load: Load, small: Path, data: st.DataObject) -> None:
    load(data.draw(mutations(small.read_bytes())))


def safetensors(header: object, body: bytes, head_bytes: int | None = None) -> bytes:
    head = json.dumps(header).encode()
    return struct.pack("<Q", len(head) if head_bytes is None else head_bytes) + head + body


TENSOR = st.fixed_dictionaries(
    {
        "dtype": DTYPES,
        "shape": st.lists(SIZES, max_size=4),
        "data_offsets": st.lists(SIZES | st.integers(0, 40), min_size=2, max_size=2),
    }
)
METADATA = st.fixed_dictionaries(
    {},
    optional={
        "manifest": st.text(max_size=20) | st.just("{}"),
        "key": st.text(max_size=10) | st.just("00" * 32),
        "signature": st.text(max_size=10) | st.just("00" * 64),
    },
)


@examples(100)
@given(
    tensors=st.dictionaries(st.text(max_size=5), TENSOR, max_size=3),
    metadata=METADATA,
    body=st.binary(max_size=64),
    head_bytes=st.none() | SIZES,
)
@example(tensors={}, metadata={}, body=b"", head_bytes=2**64 - 1)
@example(tensors={}, metadata={}, body=b"", head_bytes=2**40)
@example(
    tensors={"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}},
    metadata={},
    body=b"",
    head_bytes=None,
)
@example(
    tensors={"a": {"dtype": "F32", "shape": [2**32, 2**32], "data_offsets": [0, 0]}},
    metadata={},
    body=b"",
    head_bytes=None,
)
def test_a_header_that_claims_anything(
    load: Load, tensors: dict[str, object], metadata: dict[str, str], body: bytes, head_bytes: int | None
) -> None:
    assert load(safetensors({"__metadata__": metadata, **tensors}, body, head_bytes)) is None


@examples(100)
@given(
    dtype=st.sampled_from(
        (
            torch.bool,
            torch.uint8,
            torch.int16,
            torch.bfloat16,
            torch.float64,
            torch.complex64,
            torch.float8_e5m2,
        )
    ),
    shape=st.lists(st.integers(0, 3), max_size=4),
    without=st.sets(st.sampled_from(("manifest", "key", "signature"))),
)
def test_whole_files_of_any_tensors_that_nobody_signed(
    load: Load, dtype: torch.dtype, shape: list[int], without: set[str]
) -> None:
    metadata = {"manifest": "{}", "key": "00" * 32, "signature": "00" * 64}
    kept = {name: text for name, text in metadata.items() if name not in without}
    assert load(save({"a": torch.zeros(shape).to(dtype)}, kept)) is None


@pytest.mark.parametrize("seed", range(3))
def test_a_model_with_a_few_wrong_bits_is_not_built(bundle_path: Path, keys: Path, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    data = bytearray(bundle_path.read_bytes())
    for at in torch.randint(0, len(data), (3,), generator=generator).tolist():
        data[at] ^= 0x10
    bundle_path.write_bytes(data)
    with bounded(), pytest.raises(BundleError) as caught:
        Inspector.load(bundle_path, trusted_keys=keys, device="cpu")
    assert is_one_line(caught.value)
