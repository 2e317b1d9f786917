"""What PyTorch's own writer makes of a full disk is one line that names the file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fullrank.encoders.torch_files import write_torch_file


def test_a_disk_that_is_full_while_tensors_are_written_is_an_error_of_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos 64 vs 0")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match=r"No space left on device.*weights.pt"):
        write_torch_file({"w": torch.ones(2)}, tmp_path / "weights.pt")
    assert list(tmp_path.iterdir()) == []


def test_nothing_else_in_the_package_writes_tensors_to_a_path() -> None:
    source = Path(__file__).parents[2] / "src" / "fullrank"
    known = {"encoders/torch_files.py", "training/checkpoint_files.py", "training/trouble.py"}
    lines = ((file, line.strip()) for file in source.rglob("*.py") for line in file.read_text().splitlines())
    calls = {
        file.relative_to(source).as_posix()
        for file, line in lines
        if "torch.save(" in line and not line.startswith("...")
    }
    assert calls <= known, "write_torch_file says what a full disk is"


def test_a_folder_in_the_place_of_a_file_is_named_rather_than_its_draft(tmp_path: Path) -> None:
    (tmp_path / "weights.pt").mkdir()
    with pytest.raises(IsADirectoryError) as caught:
        write_torch_file({"w": torch.ones(2)}, tmp_path / "weights.pt")
    assert caught.value.filename == str(tmp_path / "weights.pt")
