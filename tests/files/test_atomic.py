"""Files that are written whole or not at all."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from cachebench.files import atomic


@pytest.mark.parametrize("umask", [0o002, 0o022, 0o027, 0o077])
def test_the_umask_says_who_may_read(tmp_path, umask):
    """Whatever wrote the file: safetensors makes one for its owner alone."""
    before = os.umask(umask)
    try:
        atomic.write_json(tmp_path / "a.json", {})
        atomic.write_csv(tmp_path / "a.csv", [{"a": 1}])
        atomic.write_tensors(tmp_path / "a.safetensors", {"a": torch.zeros(1)})
        with atomic.atomic(tmp_path / "a.npz") as temporary:
            np.savez(temporary, a=np.zeros(1))
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o666 & ~umask}


def test_a_failed_block_leaves_what_was_there_and_nothing_else(tmp_path):
    atomic.write_text(path := tmp_path / "a.txt", "before")
    with pytest.raises(RuntimeError), atomic.atomic(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "before" and [*tmp_path.iterdir()] == [path]


def test_writers_of_one_file_do_not_meet(tmp_path):
    texts = [str(i) * 100_000 for i in range(8)]
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda text: atomic.write_text(tmp_path / "a.txt", text), texts * 10))
    assert (tmp_path / "a.txt").read_text() in texts and len([*tmp_path.iterdir()]) == 1


def test_what_killed_writers_left_is_known_and_nothing_else(tmp_path):
    with pytest.raises(KeyboardInterrupt), atomic.atomic(tmp_path / "a.json") as temporary:
        assert atomic.is_temporary(temporary)
        raise KeyboardInterrupt
    for name in ("a.json", ".lock", ".a.json", ".gitignore", "a.0123abcd.json"):
        (tmp_path / name).touch()
        assert not atomic.is_temporary(tmp_path / name)
