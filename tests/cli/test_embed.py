"""`fullrank embed` from the command line: what it writes, how it goes on, and what it refuses."""

from __future__ import annotations

import json
import multiprocessing
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cli.embed_worker import doomed, one_of
from cli.helpers import Called, answered, call, refused, save_images
from encoders.foreign_layouts import dino, lightly, moco, resnet, simsiam, solo, vit
from fullrank.encoders.opening import open_encoder
from fullrank.features.extraction import embed_images
from fullrank.features.store import LAYOUTS, open_stored
from fullrank.images.opening import open_data

FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(["fullrank.features.writing"])  # imports torch once
RUN_TAPS = "features,blocks.0,projector,predictor"


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_a_run_gives_any_tap_of_its_own_images(
    layout: str, trained: tuple[Path, Called], tmp_path: Path
) -> None:
    run = trained[0]
    found = answered("embed", str(run), "--taps", RUN_TAPS, "--out", "F", "--format", layout)
    assert found["taps"] == {"features": 64, "blocks.0": 16, "projector": 32, "predictor": 32}
    assert found["rows"] == {"train": 256, "test": 256}
    stored = open_stored(Path("F"))
    held_out = open_data("shapes", limit=256).held_out
    model = open_encoder(run)
    direct = torch.cat([batch.rows["features"] for batch in embed_images(model, held_out, device="cpu")])
    assert torch.allclose(stored["test"].rows["features"], direct, atol=1e-5)
    labels = stored["test"].labels
    assert labels is not None and labels.tolist() == held_out.labels.tolist()  # type: ignore[union-attr]
    said = stored["train"].provenance
    assert said["classes"] == held_out.classes and said["image_size"] == 16 and said["views"] == 0
    assert said["run"]["method"] == "simsiam" and said["run"]["verdict"]["kind"]
    assert said["mean"] == list(model.mean or ()) and said["fullrank"]


def test_the_same_command_again_has_nothing_to_do_and_another_is_refused(
    trained: tuple[Path, Called],
) -> None:
    run = str(trained[0])
    answered("embed", run, "--out", "F", "--split", "test")
    file = Path("F/test.safetensors")
    when = file.stat().st_mtime_ns
    answered("embed", run, "--out", "F", "--split", "test")
    assert file.stat().st_mtime_ns == when
    answered("embed", run, "--out", "F")
    assert Path("F/train.safetensors").exists() and file.stat().st_mtime_ns == when, "a split can be added"
    line = refused("embed", run, "--out", "F", "--taps", "features,projector")
    assert "F holds the features of another command (taps features, not features,projector)" in line


def test_augmented_views_are_the_seeds_and_repeat_the_indices(trained: tuple[Path, Called]) -> None:
    words = (str(trained[0]), "--split", "train", "--limit", "40", "--views", "3")
    answered("embed", *words, "--out", "F")
    answered("embed", *words, "--out", "G", "--batch-size", "7")
    answered("embed", *words, "--out", "H", "--seed", "1")
    first, again, other = (open_stored(Path(name))["train"] for name in "FGH")
    z = first.rows["features"]
    assert z.shape == (120, 64) and first.provenance["views"] == 3
    assert first.indices.tolist() == [k for k in range(40) for _ in range(3)]
    assert torch.allclose(z, again.rows["features"], atol=1e-5)
    assert not torch.allclose(z, other.rows["features"], atol=1e-2)
    groups = z.view(40, 3, 64)
    assert (groups - groups.mean(1, keepdim=True)).square().sum() < (z - z.mean(0)).square().sum()


def test_a_killed_command_goes_on_to_the_same_bytes(trained: tuple[Path, Called]) -> None:
    words = [str(trained[0]), "--batch-size", "50", "--taps", "features,projector"]
    answered("embed", *words, "--out", "whole")
    process = FORKSERVER.Process(target=doomed, args=(["embed", *words, "--out", "F"], 3))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    assert json.loads(Path("F/.train.partial/part-0-of-1/progress.json").read_text())["rows"] == 150
    answered("embed", *words, "--out", "F")
    for name in ("train.safetensors", "test.safetensors"):
        assert Path("F", name).read_bytes() == Path("whole", name).read_bytes()


def test_two_processes_write_what_one_writes(trained: tuple[Path, Called]) -> None:
    words = [str(trained[0]), "--batch-size", "32", "--taps", "features,projector"]
    answered("embed", *words, "--out", "one")
    command = ["embed", *words, "--out", "two"]
    processes = [FORKSERVER.Process(target=one_of, args=(command, rank, 2)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    for name in ("train.safetensors", "test.safetensors"):
        assert Path("two", name).read_bytes() == Path("one", name).read_bytes()


CHECKPOINTS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "simsiam.pth.tar": (simsiam, ()),
    "li_simsiam.pth.tar": (simsiam, ("--prefix", "state_dict.module.encoder.")),
    "lightly.ckpt": (lightly, ()),
    "moco.pth.tar": (moco, ("--prefix", "state_dict.module.encoder_k.")),
    "dino.pth": (dino, ()),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_checkpoints_of_others_are_embedded(name: str) -> None:
    layout, words = CHECKPOINTS[name]
    torch.save(layout(resnet()), name)
    common = ("--data", "shapes", "--split", "test", "--limit", "8", "--image-size", "32")
    found = answered("embed", name, *common, *words, "--taps", "layer3,features", "--out", "F")
    assert found["taps"] == {"layer3": 256, "features": 512}
    model = open_encoder(name, image_size=32, prefix=words[1] if words else None)
    expected = direct(model.network, model.mean, model.std)
    assert torch.allclose(open_stored(Path("F"))["test"].rows["features"], expected, rtol=1e-4, atol=1e-4)


def direct(network: nn.Module, mean: Any, std: Any) -> Tensor:
    """Features of 8 held-out shapes by hand."""
    from fullrank.images.decoding import fit

    images: Any = open_data("shapes", limit=8).held_out
    shift, scale = (torch.tensor(values).view(3, 1, 1) for values in (mean or images.mean, std or images.std))
    with torch.no_grad():
        rows: Tensor = network((fit(images.images, 32, 32) / 255 - shift) / scale)
    return rows


def test_a_solo_learn_folder_is_embedded_with_its_own_stem() -> None:
    network = resnet(padding=2)
    Path("solo").mkdir()
    torch.save(solo(network), "solo/cplearn-abc-ep=999.ckpt")
    settings = {"method": "cplearn", "backbone": {"name": "resnet18"}, "data": {"dataset": "cifar10"}}
    Path("solo/args.json").write_text(json.dumps(settings))
    found = answered("embed", "solo", "--data", "shapes", "--split", "test", "--limit", "8", "--out", "F")
    assert found["taps"] == {"features": 512}
    rows = open_stored(Path("F"))["test"].rows["features"]
    assert torch.allclose(rows, direct(network, None, None), rtol=1e-4, atol=1e-4)


def test_a_transformer_of_dino_gives_its_class_token() -> None:
    torch.save({"teacher": {f"module.backbone.{k}": v for k, v in vit().state_dict().items()}}, "dino.pth")
    words = ("--data", "shapes", "--split", "test", "--limit", "8", "--out")
    answered("embed", "dino.pth", *words, "F", "--taps", "blocks.1,features", "--tokens", "class")
    rows = open_stored(Path("F"))["test"].rows
    network: Any = open_encoder("dino.pth").network
    with torch.no_grad():
        assert torch.allclose(network.norm(rows["blocks.1"]), rows["features"], atol=1e-4)


def test_an_audit_reads_what_was_written_and_looks_behind_the_projector(trained: tuple[Path, Called]) -> None:
    run = str(trained[0])
    answered("embed", run, "--out", "F", "--taps", "features,projector")
    answers = []
    for words in (("F/test.safetensors", "--key", "projector"), (run, "--taps", "projector")):
        called = call("audit", *words, "--no-page", "--json", "--metrics", "level,erank_centred")
        assert called.code == 0, called
        answers.append(json.loads(called.out))
    kinds = [answer["verdict"] for answer in answers]
    assert kinds[0] == kinds[1]


def test_images_without_labels_have_none() -> None:
    save_images("photos", 12, 32)
    words = ("timm:resnet18", "--untrained", "--image-size", "32", "--data", "photos", "--out", "F")
    assert sum(answered("embed", *words)["rows"].values()) == 12
    assert all(part.labels is None for part in open_stored(Path("F")).values())


def test_the_terminal_says_what_is_where(trained: tuple[Path, Called]) -> None:
    called = call("embed", str(trained[0]), "--out", "F", "--limit", "20")
    assert called.code == 0
    assert called.out.splitlines() == [
        "train   20 rows of features 64: F/train.safetensors",
        "test    20 rows of features 64: F/test.safetensors",
    ]
    assert "note    a random 20 of 4,000 training images" in called.err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("timm:resnet18", "--untrained"), "an encoder needs images: add --data with a folder"),
        (("RUN", "--taps", "codes"), "simsiam has no tap codes; it has backbone, projector, predictor"),
        (("RUN", "--taps", "layer9"), "unknown layer 'layer9'"),
        (("RUN", "--split", "val"), "unknown split 'val'"),
        (("RUN", "--split", ""), "no split is named; take train, test or both"),
        (("RUN", "--views", "-1"), "--views must not be negative, not -1"),
        (("RUN", "--view-preset", "simsiam"), "add --views with a number of views"),
        (("RUN", "--views", "2", "--view-preset", "simsaim"), "did you mean 'simsiam'?"),
        (("RUN", "--batch-size", "0"), "batch size 0 is not positive"),
        (("RUN/checkpoints/last.pt", "--untrained", "--data", "shapes"), "--untrained is for runs and enc"),
        (("RUN", "--format", "pickle"), "pickle"),
        (("RUN", "--data", "no-such-data"), "unknown data set 'no-such-data'"),
        (("no-such-model", "--data", "shapes"), "unknown model 'no-such-model'"),
    ],
)
def test_what_cannot_be_is_one_line(words: tuple[str, ...], line: str, trained: tuple[Path, Called]) -> None:
    assert line in refused("embed", *(word.replace("RUN", str(trained[0])) for word in words), "--out", "F")


def test_nonsense_of_a_launcher_is_one_line(
    trained: tuple[Path, Called], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fullrank.cli.ALIKE", 0.0)
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "2")
    said = "RANK is 2 in the environment, and 2 processes are said to run: it must be below 2"
    assert said in refused("embed", str(trained[0]), "--out", "F")


@pytest.mark.parametrize("layout", ["safetensors", "parquet", "npy"])
def test_stored_features_of_an_untrained_encoder_are_judged_as_the_encoder_is(layout: str) -> None:
    encoder = ("timm:resnet10t", "--untrained", "--image-size", "32", "--data", "shapes", "--limit", "80")
    assert call("embed", *encoder, "--out", "F", "--format", layout).code == 0
    store = ("F", "--split", "train")
    direct, stored = (answered("audit", *words, "--no-page") for words in (encoder, store))
    assert (direct["verdict"], direct["why"]) == (stored["verdict"], stored["why"])
    assert stored["verdict"] == "not decidable"
