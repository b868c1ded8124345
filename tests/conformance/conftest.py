"""Merges here are compared for their bytes: they need not wait for a disk to have them."""

import shutil
import tempfile
from pathlib import Path

import pytest

SHM = Path("/dev/shm")
ROOM = 2 << 30  # bytes; the largest test takes a tenth, and a container may have only 64 MB


@pytest.fixture
def tmp_path(tmp_path):
    """A folder in memory, where there is room."""
    if not SHM.is_dir() or shutil.disk_usage(SHM).free < ROOM:
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=SHM, prefix="mergeplan-tests-") as folder:
        yield Path(folder)
