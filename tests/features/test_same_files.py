"""Processes that would read other files than the others all refuse, in one line that names what differs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from features.embedding_writers import WRITERS, N, Writer, Y, Z
from features.test_shards import together
from fullrank.agreement import check_same_options
from fullrank.collapse.peers import Peers
from fullrank.errors import UsageError
from fullrank.evaluation.labelled import open_features
from fullrank.features import process_group, same_files
from fullrank.features.embeddings import open_embeddings
from fullrank.features.subject import open_encoder_subject
from fullrank.features.writing import StoreWriter, digest_of_weights
from fullrank.options import EvaluateOptions
from fullrank.report.audit.options import AuditOptions
from fullrank.report.audit.subjects import audit_subject

OF_FILES = [writer for writer in WRITERS if "zarr" not in writer.__name__]


def outcomes(work: Callable[[int, Peers], object], size: int = 2) -> list[str]:
    """What each process says; nothing of one that goes on."""

    def run(peers: Peers) -> str:
        token = process_group._SHARED.set(peers)
        try:
            work(peers.rank, peers)
        except UsageError as error:
            return str(error)
        finally:
            process_group._SHARED.reset(token)
        return ""

    return together(size, run)


def refusal(here: Path, there: Path, size: int = 2) -> str:
    """What all say where the last of them reads other files."""
    said = outcomes(lambda rank, peers: open_embeddings((here, there)[rank == size - 1], peers=peers), size)
    assert len(set(said)) == 1
    return said[0]


def removed(folder: Path) -> None:
    (folder / "part-4.npy").unlink()


def renamed(folder: Path) -> None:
    (folder / "part-4.npy").rename(folder / "part-40.npy")


def longer(folder: Path) -> None:
    np.save(folder / "part-4.npy", np.zeros((31, 5)))


def another(folder: Path) -> None:
    np.save(folder / "part-4.npy", np.load(folder / "part-4.npy")[::-1].copy())


def labelled(folder: Path) -> None:
    np.save(folder / "labels.npy", np.arange(12 * 30))


CHANGES: dict[Callable[[Path], None], str] = {
    removed: "reads 11 files",
    renamed: "reads part-5.npy of",
    longer: "reads part-4.npy of 1,368 bytes, rank 0 part-4.npy of 1,328",
    another: "reads part-4.npy, whose content is not that of part-4.npy on rank 0",
    labelled: "reads 13 files",
}


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_other_files_in_one_process_are_named_by_all(
    change: Callable[[Path], None], size: int, tmp_path: Path
) -> None:
    (tmp_path / "here").mkdir()
    for k in range(12):
        np.save(tmp_path / "here" / f"part-{k}.npy", np.random.default_rng(k).standard_normal((30, 5)))
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    assert refusal(tmp_path / "here", tmp_path / "there", size) == ""
    change(tmp_path / "there")
    said = refusal(tmp_path / "here", tmp_path / "there", size)
    assert said.startswith(f"rank {size - 1} {CHANGES[change]}") and "start all processes with" in said


@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.__name__)
def test_a_copy_of_a_file_elsewhere_is_the_same_in_every_format(writer: Writer, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    here = writer(tmp_path / "here", Z, Y)
    there = tmp_path / "there" / f"copy-{here.name}"
    (shutil.copytree if here.is_dir() else shutil.copy)(here, there)
    assert refusal(here, there) == ""


@pytest.mark.parametrize("writer", OF_FILES, ids=lambda writer: writer.__name__)
def test_other_rows_in_one_process_are_refused_in_every_format(writer: Writer, tmp_path: Path) -> None:
    for name, z in (("here", Z), ("there", Z[::-1].copy())):
        (tmp_path / name).mkdir()
        writer(tmp_path / name, z, Y)
    here, there = (next((tmp_path / name).iterdir()) for name in ("here", "there"))
    assert refusal(here, there).startswith("rank 1 reads ")


def test_of_many_files_some_are_opened_and_all_are_compared_by_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(same_files, "MOST_READ", 3)
    for name, rows in (("here", 30), ("there", 31)):
        (tmp_path / name).mkdir()
        for k in range(20):
            np.save(tmp_path / name / f"part-{k}.npy", np.zeros((rows if k == 5 else 30, 5)))
    assert "part-5.npy of 1,368 bytes" in refusal(tmp_path / "here", tmp_path / "there")


def test_other_labels_in_one_process_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "z.npy", Z)
    np.save(tmp_path / "0.npy", np.arange(N) % 5)
    np.save(tmp_path / "1.npy", np.arange(N) % 4)

    def audit(rank: int, peers: Peers) -> None:
        audit_subject(str(tmp_path / "z.npy"), AuditOptions(labels=f"{tmp_path}/{rank}.npy"), peers=peers)

    said = outcomes(audit)
    assert said[0] == said[1] and "rank 1 has labels of the digest" in said[0]


def stored(folder: Path, rows: int, factor: float) -> Path:
    for split in ("train", "test"):
        writer = StoreWriter(folder, split, {"subject": "net", "data": "shapes", "taps": ["features"]})
        z = torch.arange(rows * 3).reshape(rows, 3) * factor
        writer.add({"features": z}, torch.arange(rows), torch.arange(rows) % 2, rows)
        writer.finish({})
    return folder


@pytest.mark.parametrize(
    ("rows", "factor", "said"),
    [
        (40, 1.0, ""),
        (39, 1.0, "rank 1 reads 39 train rows of 3, rank 0 reads 40 train rows of 3"),
        (40, 2.0, "rank 1 reads train features of the digest "),
    ],
)
def test_processes_that_evaluate_read_the_same_features(
    rows: int, factor: float, said: str, tmp_path: Path
) -> None:
    folders = stored(tmp_path / "a", 40, 1.0), stored(tmp_path / "b", rows, factor)
    found = outcomes(lambda rank, peers: open_features(str(folders[rank]), EvaluateOptions()))
    assert found[0] == found[1] and found[0].startswith(said) and bool(found[0]) == bool(said)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, ""),
        ({"what": "elsewhere/z", "out": "b", "workers": 3, "json": True}, ""),
        ({"key": "features"}, "rank 2 has --key features, rank 0 has --key empty"),
        ({"max_images": 9}, "rank 2 has --max-images 9, rank 0 has no max_images"),
    ],
)
def test_processes_have_the_options_of_the_first(options: dict[str, object], said: str) -> None:
    common = {"what": "z", "key": "", "out": "a", "workers": 0, "json": False}

    def check(rank: int, peers: Peers) -> None:
        check_same_options("audit", common | (options if rank == 2 else {}), peers)

    found = outcomes(check, 3)
    assert len(set(found)) == 1 and found[0].startswith(said) and bool(found[0]) == bool(said)


def test_other_commands_are_told_apart() -> None:
    found = outcomes(lambda rank, peers: check_same_options(("audit", "evaluate knn")[rank], {}, peers))
    assert set(found) == {found[0]} and "rank 1 was started for evaluate knn, rank 0 was" in found[0]


def test_untrained_networks_of_several_processes_have_the_same_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    options, digests = EvaluateOptions(untrained=True, image_size=32), set()
    for seed in (1, 2):
        torch.manual_seed(seed)
        subject = open_encoder_subject("timm:resnet10t", options, None, "shapes", 60)
        digests.add(digest_of_weights(subject.encoder.network))
    assert len(digests) == 1
