"""A run of ours gives every tap of its method, with the weights of the encoder that it left."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fullrank.encoders.opening import open_encoder
from fullrank.encoders.runs import encoder_header, open_with_taps, own_data, own_run
from fullrank.errors import UsageError
from fullrank.features.extraction import embed_images
from fullrank.methods import METHODS
from fullrank.training.config import TrainConfig, make_train_config
from fullrank.training.run import train

QUIET: dict[str, Any] = {
    "data": "shapes", "limit": 64, "batch_size": 32, "epochs": 1, "backbone": "resnet8-w16", "knn_every": 0,
    "level_every": 100,
}  # fmt: skip
OWN_TAPS = {
    "byol": ("backbone", "projector", "predictor", "target"),
    "simsiam": ("backbone", "projector", "predictor"),
    "cplearn": ("backbone", "projector", "codes"),
    "dino": ("backbone", "projector", "codes", "target"),
    "swav": ("backbone", "projector", "codes"),
    "directpred": ("backbone", "projector", "predictor", "target"),
    "barlow_twins": ("backbone", "projector"),
}


def settings(method: str, **more: Any) -> TrainConfig:
    """A short run with narrow heads."""
    knobs = vars(METHODS[method].Config())
    large = {key: 16 for key, value in knobs.items() if type(value) is int and value >= 64}
    return make_train_config(method, {**QUIET, "options": large, **more})


@pytest.fixture(scope="module", params=OWN_TAPS)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("runs") / request.param
    train(settings(request.param), folder, [])
    return folder


def test_every_tap_of_a_method_is_what_its_own_embed_gives(run: Path) -> None:
    taps = OWN_TAPS[run.name]
    model = open_with_taps(run, taps)
    assert [tap for tap in model.taps if tap in taps] == list(taps)
    found = own_run(run)
    assert found is not None
    source: Any = own_data(found.config()).held_out
    parts = list(embed_images(model, source, [*taps, "features", "blocks.0"], 64, "cpu"))
    network: Any = model.network
    method = network.method
    encoder = open_encoder(run)
    state = load_file(run / "encoder.safetensors")
    assert all(torch.equal(value, state[name]) for name, value in method.backbone.state_dict().items())
    rows = {tap: torch.cat([part.rows[tap] for part in parts]) for tap in parts[0].rows}
    with torch.no_grad():
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (encoder.mean, encoder.std))
        images = (source.images / 255 - mean) / std
        expected = method.embed(images)
        features = encoder.network(images)
    for tap in taps:
        scale = method.code_temperature if tap == "codes" else 1.0
        assert torch.allclose(rows[tap], expected[tap] / scale, rtol=1e-4, atol=1e-5), tap
    assert torch.allclose(rows["features"], features, atol=1e-5)
    assert rows["blocks.0"].shape == (64, 16)


def test_a_tap_that_a_method_has_not_is_one_line(run: Path) -> None:
    for tap in {"predictor", "target", "codes"} - set(OWN_TAPS[run.name]):
        with pytest.raises(UsageError, match=f"has no tap {tap}; it has backbone, projector"):
            open_with_taps(run, [tap])


def test_where_the_encoder_is_the_healthy_one_so_is_the_method(tmp_path: Path) -> None:
    train(settings("byol"), tmp_path / "run", [])
    found = own_run(tmp_path / "run")
    assert found is not None
    newest = found.checkpoints.newest()
    assert newest is not None
    state = newest.state
    later = copy.deepcopy(state)
    later["progress"]["step"] += 1
    for value in later["method"].values():
        if value.is_floating_point():
            value.zero_()
    found.checkpoints.keep_healthy()
    for _ in range(3):  # until no other is kept
        found.checkpoints.write(later)
    network: Any = open_with_taps(tmp_path / "run", ["projector"]).network
    weights = network.method.state_dict()
    assert all(torch.equal(value, state["method"][name]) for name, value in weights.items())
    found.checkpoints.path("healthy").unlink()
    with pytest.raises(UsageError, match=r"no checkpoint of its encoder \(step 2\)"):
        open_with_taps(tmp_path / "run", ["projector"])
    assert open_with_taps(tmp_path / "run", ["features"]).feature_dim == 64, "which needs no checkpoint"


def test_the_header_tells_how_it_was_judged(run: Path) -> None:
    found = own_run(run / "encoder.safetensors")
    assert found is not None
    header = encoder_header(found)
    assert header["method"] == run.name and header["epoch"] == 1 and "kind" in header["verdict"]
    assert own_run(run.parent) is None


def test_a_run_with_another_seed_holds_out_the_images_that_it_held_out() -> None:
    config = settings("simsiam", seed=5)
    drawn: Any = own_data(config)
    assert len(drawn.train) == 64
    other: Any = own_data(settings("simsiam")).train
    assert not torch.equal(drawn.train.images, other.images)
    assert len(own_data(config, limit=10).held_out) == 10
