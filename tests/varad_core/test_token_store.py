import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from varad_core.token_store import TokenStore
from varad_core.types import DataError


@given(st.lists(st.integers(1, 3), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_rows_come_back_in_any_order_with_their_owners(batches, random):
    grids = [(torch.randn(count, 3, 4, 4), torch.randn(count, 5, 2, 2)) for count in batches]
    with TokenStore() as store:
        for owner, pair in enumerate(grids):
            store.append(pair, owner)
        assert store.owners == [owner for owner, count in enumerate(batches) for _ in range(count)]
        order = random.sample(range(len(store.owners)), len(store.owners))
        found = store.rows(np.array(order))
        for hierarchy in range(2):
            every = torch.cat([pair[hierarchy] for pair in grids])[order]
            assert torch.equal(found[hierarchy], every.half().float())
        del found


def test_nothing_is_left_behind_even_by_an_error(tmp_path: Path):
    with pytest.raises(KeyError), TokenStore(tmp_path) as store:
        store.append([torch.zeros(1, 2, 2, 2)], 0)
        store.rows(np.array([0]))
        assert list(tmp_path.iterdir())
        raise KeyError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root")
def test_a_full_disk_is_told_with_its_folder_and_leaves_nothing(tmp_path: Path):
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        with pytest.raises(DataError, match=r"No space left.*TMPDIR") as told, TokenStore(tmp_path) as store:
            for owner in range(8):
                store.append([torch.zeros(1, 64, 16, 16)], owner)
        assert str(tmp_path) in str(told.value)
        assert list(tmp_path.iterdir()) == []
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_tmpdir_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with TokenStore() as store:
        store.append([torch.zeros(1, 2, 2, 2)], 0)
        assert len(list(tmp_path.iterdir())) == 1
