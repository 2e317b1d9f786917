"""What `fullrank train` leaves in the run directory, and that it can be read by those who come after."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors import safe_open

from cli.helpers import SMALL, Called, call, records
from fullrank.networks.backbones import build_backbone
from fullrank.training.run_dir import RunDir

KINDS = {
    "simsiam": ("simsiam", *SMALL),
    "byol": ("byol", *SMALL),
    "vit": (
        *("simsiam", *SMALL, "--backbone", "vit_tiny_patch16_224", "--image-size", "32"),
        *("--limit", "128", "--epochs", "1"),
    ),
}


@pytest.fixture(scope="module", params=KINDS)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of each kind."""
    if request.param == "simsiam":
        trained: tuple[Path, Called] = request.getfixturevalue("trained")
        return trained[0]
    path: Path = tmp_path_factory.mktemp("runs") / request.param
    assert call("train", *KINDS[request.param], "--quiet", "--out", str(path)).code == 0
    return path


def epochs(run: Path) -> int:
    return RunDir.open(run).config().epochs


def header(run: Path) -> dict[str, str]:
    raw = (run / "encoder.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    found: dict[str, str] = json.loads(raw[8 : 8 + length])["__metadata__"]
    return found


def test_config_yaml_is_resolved_and_reads_back_as_the_same_configuration(run: Path) -> None:
    values = yaml.safe_load((run / "config.yaml").read_text())
    assert RunDir.open(run).config().as_dict() == values
    assert values["image_size"] > 0 and "auto" not in (values["backbone"], values["views"])


def test_environment_json_tells_versions_and_command(run: Path) -> None:
    found = json.loads((run / "environment.json").read_text())
    assert found["versions"]["torch"] == torch.__version__.split("+")[0]
    assert found["command"].startswith("fullrank")


def test_metrics_jsonl_is_strict_json_from_the_untrained_network_to_the_end(run: Path) -> None:
    rows = records(run)
    assert [row["epoch"] for row in rows if row["event"] == "epoch"] == list(range(epochs(run) + 1))
    assert rows[-1]["event"] == "end" and rows[-1]["reason"] == "finished"


def test_every_epoch_has_finite_descending_spectra(run: Path) -> None:
    for epoch in range(epochs(run) + 1):
        with np.load(run / "spectra" / f"epoch_{epoch:04d}.npz", allow_pickle=False) as arrays:
            assert {"backbone.centred", "projector.centred", "projector.unit"} <= set(arrays.files)
            for name in arrays.files:
                assert np.isfinite(arrays[name]).all(), name
                sorted_by_itself = not name.startswith("predictor-map.") or name.endswith("eigenvalues")
                assert not sorted_by_itself or (np.diff(arrays[name]) <= 0).all(), name


def test_the_last_checkpoint_loads_without_unpickling_code(run: Path) -> None:
    state = torch.load(run / "checkpoints" / "last.pt", weights_only=True)
    assert state["progress"]["epoch"] == epochs(run) and state["progress"]["ended"] == "finished"


def test_the_encoder_says_what_it_is_how_to_normalise_and_how_it_was_judged(run: Path) -> None:
    config, found = RunDir.open(run).config(), header(run)
    assert found["format"] == "fullrank-encoder"
    assert (found["backbone"], int(found["image_size"])) == (config.backbone, config.image_size)
    assert len(json.loads(found["mean"])) == len(json.loads(found["std"])) == 3
    last = [row for row in records(run) if row["event"] == "epoch"][-1]
    assert json.loads(found["verdict"]) == last["verdict"]


def test_the_encoder_fits_the_backbone_that_its_header_names(run: Path) -> None:
    found = header(run)
    backbone = build_backbone(found["backbone"], int(found["image_size"]), stem=found["stem"])  # type: ignore[arg-type]
    with safe_open(run / "encoder.safetensors", "pt") as file:
        backbone.network.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    assert backbone.feature_dim == int(found["feature_dim"])


def test_views_png_is_a_picture(run: Path) -> None:
    with Image.open(run / "figures" / "views.png") as picture:
        picture.load()
        assert min(picture.size) > 32


def test_the_page_tells_the_verdict(run: Path) -> None:
    last = [row for row in records(run) if row["event"] == "epoch"][-1]
    assert last["verdict"]["kind"] in (run / "report.html").read_text().lower()


def test_report_writes_the_page_anew_and_says_where(trained: tuple[Path, Called]) -> None:
    page = trained[0] / "report.html"
    page.write_text("old")
    called = call("report", str(trained[0]))
    assert called.out.split() == [str(page)] and "<html" in page.read_text()


def test_a_run_can_be_trained_again_from_its_config(trained: tuple[Path, Called]) -> None:
    config = str(trained[0] / "config.yaml")
    assert call("train", config, "--quiet", "--out", "again").code == 0
    assert records(Path("again")) == records(trained[0])
