"""Audits of different subjects never share a folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import fullrank
from fullrank.cli import main
from fullrank.encoders.encoder import make_encoder
from fullrank.errors import UsageError
from fullrank.evaluation.result import result_folder
from fullrank.features.subject import EncoderSubject
from fullrank.images.opening import open_data
from fullrank.networks.architecture import Built
from fullrank.report.audit import subjects
from fullrank.report.audit.folder import audit_folder, identity
from fullrank.untrusted.paths import expand_user


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def written(file: str, out: str = "") -> Path:
    """The folder of an audit of a file, with what an audit leaves there."""
    Path(file).parent.mkdir(exist_ok=True)
    Path(file).touch()
    folder = audit_folder(file, out)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "audit.json").write_text(json.dumps({"subject": identity(file)}))
    return folder


@pytest.mark.parametrize(
    "files",
    [
        ("a/emb.npy", "b/emb.npy"),
        ("a/emb.npy", "a/emb.pt", "a/emb.npz"),
        ("a/emb.npy", "a/Emb.npy"),
        ("a/emb.npy", "a/c/../emb.pt", "b/a-emb.npy"),
    ],
)
def test_files_of_one_name_have_folders_of_their_own(files: tuple[str, ...]) -> None:
    Path("a/c").mkdir(parents=True)
    folders = [written(file) for file in files]
    assert len({str(folder).casefold() for folder in folders}) == len(files)
    assert [written(file) for file in files] == folders, "the same file has the same folder again"


@pytest.mark.parametrize(
    "files", [("sup.parquet", "sup.csv"), ("a/sup.npy", "b/sup.npy"), ("a/sup.npy", "a/Sup.npy")]
)
def test_evaluations_of_files_of_one_name_have_folders_of_their_own(files: tuple[str, ...]) -> None:
    def evaluated(file: str) -> Path:
        Path(file).parent.mkdir(exist_ok=True)
        Path(file).touch()
        folder = result_folder(file)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "knn.json").write_text(json.dumps({"what": identity(file)}))
        return folder

    folders = [evaluated(file) for file in files]
    assert len({str(folder).casefold() for folder in folders}) == len(files)
    assert [evaluated(file) for file in files] == folders, "the same file has the same folder again"
    with pytest.raises(UsageError, match=r"holds the evaluation of .*: take another --out"):
        result_folder(files[1], folders[0])


@pytest.mark.parametrize("name", ["~.npy", "~nobody/x.npy", "~"])
def test_what_is_there_is_taken_by_its_very_name(name: str) -> None:
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).touch()
    assert expand_user(name) == Path(name) and identity(name) == str(Path(name).absolute())


@pytest.mark.parametrize("command", ["audit", "evaluate knn", "compare", "pick", "embed --out F"])
def test_the_home_of_a_user_that_is_not_there_is_one_line(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command.split(), "~nosuchuser/x.npy"]) == 2
    assert capsys.readouterr().err == (
        "fullrank: ~nosuchuser/x.npy does not exist: no user is called nosuchuser\n"
    )


def test_a_home_is_looked_up_in_one_place() -> None:
    sources = Path(fullrank.__file__).parent.rglob("*.py")
    variables = ("layouts.py", "index_files.py")  # of the environment
    using = {file.name for file in sources if ".expanduser(" in file.read_text()} - {*variables}
    assert using == {"paths.py"}


def test_a_named_folder_is_for_one_subject() -> None:
    assert written("a/emb.npy", "out") == written("a/emb.npy", "out") == Path("out")
    with pytest.raises(UsageError, match=r"out holds the audit of .*a/emb.npy: take another --out"):
        audit_folder("b/emb.npy", "out")


def test_what_is_no_audit_of_ours_is_in_nobody_s_way() -> None:
    Path("out").mkdir()
    for text in ("{", "[]", "{}"):
        Path("out/audit.json").write_text(text)
        assert audit_folder("emb.npy", "out") == Path("out")


def test_an_encoder_with_a_narrow_end_is_held_against_what_it_could_span(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network = nn.Sequential(body, nn.Linear(64, 8), nn.Linear(8, 256))
    encoder = make_encoder(Built("narrow", network, 32), origin="memory")
    subject = EncoderSubject(encoder, open_data("shapes", limit=200), own=False)
    monkeypatch.setattr(subjects, "open_subject", lambda *_, **__: subject)
    audit = subjects.audit_subject("timm:resnet18", subjects.AuditOptions(data="shapes"))["features"]
    assert audit.panel is not None
    assert audit.panel.possible == 8
    assert "bottleneck" in [blemish.name for blemish in audit.verdict.blemishes]
