"""A process that decoded with workers ends when its work does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cli.helpers import save_images

HELD = """
import sys
from fullrank.images.batch_loaders import CentreCrop, LazyLoader, Wanted
from fullrank.images.opening import open_data
import numpy as np
if __name__ == "__main__":
    source = open_data(sys.argv[1], memory_limit_bytes=0).train
    loader = LazyLoader(source, CentreCrop(8, 8), workers=2, replace_corrupt=True)
    plan = [Wanted(np.arange(2), 0, np.arange(2))] * 5
    batches = loader.load(plan)
    kept = [next(batches), loader, batches]
    kept.append(kept)  # in a circle, so that nothing but the end of the process collects it
    {ending}
"""
ENDINGS = {"its end": "print('done')", "an error": "raise SystemExit(7)", "a signal": "sys.exit(143)"}


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_process_that_still_holds_a_loader_ends_at(ending: str, tmp_path: Path) -> None:
    save_images(tmp_path / "images", 12)
    script = tmp_path / "script.py"
    script.write_text(HELD.replace("{ending}", ENDINGS[ending]))
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "images")], capture_output=True, timeout=60
    )
    assert done.returncode == {"its end": 0, "an error": 7, "a signal": 143}[ending], done.stderr.decode()
