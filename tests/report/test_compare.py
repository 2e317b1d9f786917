"""Comparisons: seeds with intervals, foreign encoders on the same images, and what does not compare."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from rich.console import Console
from safetensors.numpy import save_file

from encoders.foreign_layouts import dino, vit
from expect import known
from fullrank.collapse.audit import audit
from fullrank.encoders.opening import open_encoder
from fullrank.errors import FullrankError, UsageError
from fullrank.evaluation.result import EvaluationResult, result_folder
from fullrank.features.extraction import embed_images
from fullrank.features.writing import StoreWriter
from fullrank.options import CompareOptions
from fullrank.report.audit.page import write_audit
from fullrank.report.audit.subjects import AuditOptions, audit_subject
from fullrank.report.compare.arms import Comparison, gather
from fullrank.report.compare.cautions import cautions, hints
from fullrank.report.compare.estimates import as_number, as_percent, estimate
from fullrank.report.compare.figures import feature_spectra, level, probes
from fullrank.report.compare.measures import choose_images, measure, shared_data
from fullrank.report.compare.page import write_arms
from fullrank.report.compare.subjects import open_subject, run_subject
from fullrank.report.compare.tables import tables
from fullrank.report.compare.terminal import print_comparison
from report.conftest import noise


def with_config(run: Path, **changes: Any) -> Path:
    """The run with other settings on record."""
    import yaml

    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(config | changes))
    return run


@pytest.fixture
def seeds(fake_run: Any) -> Any:
    """Runs that differ in nothing but their seed: which kinds they came to."""

    def make(*kinds: str, stem: str = "simsiam-s", **settings: Any) -> list[str]:
        base = with_config(fake_run("healthy", f"{stem}-config", epochs=1))
        runs = []
        for seed, kind in enumerate(kinds):
            run = fake_run(kind, f"{stem}{seed}", epochs=3, **settings)
            shutil.copy(base / "config.yaml", run / "config.yaml")
            runs.append(str(with_config(run, seed=seed, out=str(run))))
        return runs

    return make


def compared(*words: str, **settings: Any) -> Comparison:
    return Comparison(gather([open_subject(word) for word in words]), **settings)


def printed(comparison: Comparison, width: int = 160) -> str:
    file = io.StringIO()
    print_comparison(comparison, Console(file=file, width=width, highlight=False))
    return file.getvalue()


def evaluated(run: str, probe: Any, protocol: str = "", tap: str = "features", **found: float) -> Path:
    """What `fullrank evaluate` leaves of a run."""
    usual = {"linear": "logistic", "knn": "vote", "cluster": "k-means", "finetune": "sgd"}
    said = EvaluationResult(probe, run, tap, "shapes", protocol or usual[probe], found, {}, 9, 9, 2, 8, 0.1)
    return said.write(result_folder(run))


@pytest.mark.parametrize("n", [3, 4, 7, 30])
def test_the_interval_is_that_of_students_t(n: int) -> None:
    values = np.random.default_rng(n).normal(0.6, 0.1, n)
    found, expected = estimate(values.tolist()), scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert found.n == n and found.mean == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_two_seeds_are_shown_as_they_are_and_have_no_interval() -> None:
    found = estimate([0.5, 0.6])
    assert (found.low, found.high, as_percent(found)) == (None, None, "50.0, 60.0 %")


def test_what_a_seed_did_not_measure_does_not_count() -> None:
    found = estimate([0.5, None, 0.6, float("nan"), 0.7])
    assert found.values == (0.5, 0.6, 0.7) and found.mean == pytest.approx(0.6)
    assert as_number(estimate([None])) == "–"


def test_runs_that_differ_in_their_seed_are_one_arm_and_others_are_not(seeds: Any, fake_run: Any) -> None:
    other = with_config(fake_run("healthy", "faster", epochs=1), lr=0.3)
    arms = compared(*seeds("healthy", "healthy", "healthy"), str(other)).arms
    assert [(arm.name, len(arm.subjects)) for arm in arms] == [("simsiam", 3), ("faster", 1)]


def test_an_arm_has_the_mean_of_its_seeds_and_its_interval(seeds: Any) -> None:
    words = seeds("healthy", "dimensional", "complete")
    (arm,) = compared(*words).arms
    rows = [
        json.loads(line) for word in words for line in Path(word, "metrics.jsonl").read_text().splitlines()
    ]
    last = [row["loss"] for row in rows if row["event"] == "epoch" and row["epoch"] == 3]
    expected = scipy.stats.ttest_1samp(last, 0).confidence_interval(0.95)
    assert arm.loss == pytest.approx(np.mean(last))
    assert arm.as_dict()["values"]["loss"]["low"] == pytest.approx(expected.low)


def test_verdicts_of_seeds_are_counted(seeds: Any) -> None:
    comparison = compared(*seeds("healthy", "healthy", "complete"))
    text = printed(comparison)
    assert "● healthy 2 of 3" in text and "■ complete 1 of 3" in text
    assert comparison.arms[0].style.word == "complete"


def test_every_curve_has_a_thin_line_for_each_seed_and_their_mean(seeds: Any, fake_run: Any) -> None:
    runs = {arm.name: arm.runs for arm in compared(*seeds("healthy", "dimensional"), str(fake_run())).arms}
    lines = level(runs)["projector",].series
    assert len(lines) == 3 + 1  # two seeds and their mean, and the other arm
    one, two, mean, other = lines
    assert one.width < mean.width and one.colour == mean.colour != other.colour
    assert mean.ys[0] == pytest.approx((np.array(one.ys[0]) + np.array(two.ys[0])) / 2)


def test_names_are_one_for_each_arm(seeds: Any) -> None:
    opened = [open_subject(word) for word in seeds("healthy", "healthy")]
    assert gather(opened, ["a"])[0].name == "a"
    with pytest.raises(UsageError, match=r"1 arms \(simsiam\), names a, b"):
        gather(opened, ["a", "b"])
    with pytest.raises(UsageError, match="named twice"):
        gather([opened[0], opened[0]])


def test_arms_of_one_folder_name_are_told_apart_by_what_lies_above(fake_run: Any) -> None:
    words = [str(with_config(fake_run("healthy", f"{x}/run", epochs=1), lr=x)) for x in (1, 2)]
    assert [arm.name for arm in compared(*words).arms] == ["1/run", "2/run"]


@pytest.fixture
def foreign(tmp_path: Path) -> str:
    """A checkpoint of DINO's with random weights."""
    path = tmp_path / "dino.pth"
    torch.save(dino(vit()), path)
    return str(path)


def test_knn_and_the_audit_are_of_the_same_images_for_every_encoder(foreign: str) -> None:
    images: Any = choose_images("shapes", CompareOptions(bank=300, queries=120))
    subject: Any = measure(open_subject(foreign), images)
    sources = (images.queries, images.bank)
    rows = [
        next(embed_images(open_encoder(foreign), source, batch_size=300)).rows["features"]
        for source in sources
    ]
    asked, bank = (torch.nn.functional.normalize(part, dim=1).numpy() for part in rows)
    assert asked.std(0).max() > 1e-3
    right = 0
    for row, label in zip(asked, images.queries.labels, strict=True):
        nearest = np.argsort(-(bank @ row))[:20]
        votes = np.bincount(images.bank.labels[nearest], np.exp(bank[nearest] @ row / 0.07), minlength=10)
        right += votes.argmax() == label
    assert subject.values["knn_same"] == pytest.approx(right / 120)
    sigma = np.linalg.svd(rows[0].numpy() - rows[0].numpy().mean(0), compute_uv=False)
    share = sigma / sigma.sum()
    expected = np.exp(-(share * np.log(share + 1e-300)).sum())
    assert subject.judged.n == 120 and subject.judged.tap == "features"
    assert subject.judged.values["erank_centred"] == pytest.approx(expected, rel=1e-3)


def test_raw_pixels_stand_beside_the_encoders(foreign: str) -> None:
    images: Any = choose_images("shapes", CompareOptions(bank=300, queries=120))
    bank, asked = (source.images.flatten(1).double() for source in (images.bank, images.queries))
    cosine = torch.nn.functional.normalize(asked, dim=1) @ torch.nn.functional.normalize(bank, dim=1).T
    best, places = cosine.topk(20)
    votes = torch.zeros(120, 10, dtype=torch.double)
    votes.scatter_add_(1, torch.from_numpy(images.bank.labels)[places], (best / 0.07).exp())
    expected = (votes.argmax(1) == torch.from_numpy(images.queries.labels)).double().mean().item()
    assert images.raw == pytest.approx(expected, abs=0.01)
    comparison = Comparison(gather([measure(open_subject(foreign), images)]), images)
    assert tables(comparison)[0].rows[-1][1] == "raw pixels"
    assert [line.name for line in probes(comparison).series] == ["dino.pth", "raw pixels"]


def test_images_without_labels_have_no_knn(foreign: str, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(40):
        noise(i).save(folder / f"{i}.png")
    images = choose_images(str(folder), CompareOptions(queries=30))
    subject = measure(open_subject(foreign), images)
    assert subject.judged is not None and subject.values["knn_same"] is None
    assert "the images have no labels" in images.about


def test_the_data_of_runs_is_taken_where_all_share_it(seeds: Any, fake_run: Any) -> None:
    shared = [open_subject(word) for word in seeds("healthy", "healthy")]
    assert shared_data(shared) == {"data": "shapes", "limit": None, "image_size": None, "seed": 0}
    other = open_subject(str(with_config(fake_run("healthy", "else", epochs=1), data="cifar10")))
    assert shared_data([*shared, other]) == {}


def test_an_audit_and_saved_embeddings_stand_beside_runs(fake_run: Any, tmp_path: Path) -> None:
    rows = torch.randn(400, 24, generator=torch.Generator().manual_seed(0))
    np.save(tmp_path / "rows.npy", rows.numpy())
    write_audit(audit_subject(rows, AuditOptions()), tmp_path / "audited", page=False, figures=False)
    writer = StoreWriter(tmp_path / "stored", "test", {"subject": "noise", "taps": ["features"], "data": "d"})
    writer.add({"features": rows}, torch.arange(400), None, images=400)
    writer.finish({"classes": None})
    words = [str(tmp_path / name) for name in ("rows.npy", "audited", "stored")]
    comparison = compared(str(fake_run("healthy", epochs=2)), *words)
    kinds = [arm.subjects[0].kind for arm in comparison.arms]
    assert kinds == ["run", "embeddings", "audit", "embeddings"]
    expected = known(audit(rows).panel).value("erank_centred")
    for arm in comparison.arms[1:]:
        assert arm.measure(arm.tap, "erank_centred").mean == pytest.approx(expected, rel=1e-5)
        assert arm.style.word == "healthy" and arm.size(arm.tap) == (400, 24)
    assert len(feature_spectra(comparison).series) == 2  # of both saved ones: an audit keeps no spectrum


def test_probes_that_were_run_are_columns_and_the_others_are_hinted_at(seeds: Any) -> None:
    words = seeds("healthy", "healthy", "healthy")
    assert [grid.title for grid in tables(compared(*words))] == ["", "Ranks of every embedding", "Training"]
    assert hints(compared(*words))[0].startswith("More probes: `fullrank evaluate all ")
    for seed, word in enumerate(words):
        evaluated(word, "linear", top1=0.6 + 0.01 * seed, top5=0.9)
        evaluated(word, "cluster", nmi=0.4, ami=0.3)
    comparison = compared(*words)
    found = next(grid for grid in tables(comparison) if grid.title == "Probes")
    cells = dict(zip(found.columns[1:], (cell.text for cell in found.rows[0][2]), strict=True))
    shares = {"Linear top-1": "61.0 ± 2.5 %", "top-5": "90.0 ± 0.0 %"}
    assert cells == {**shares, "NMI": "0.400 ± 0", "AMI": "0.300 ± 0"}
    assert hints(comparison) == []


def test_losses_of_several_methods_are_not_compared(fake_run: Any, tmp_path: Path) -> None:
    one = fake_run("healthy", "one", epochs=3)
    two = with_config(fake_run("complete", "two", epochs=3), method="byol")
    comparison = compared(str(one), str(two))
    assert any("Losses of simsiam and byol" in line for line in cautions(comparison))
    page = write_arms(comparison, tmp_path / "page.html", "Two").read_text()
    assert "best loss" not in page and "1 of 2 arms collapsed" in page


def test_widths_rows_taps_and_images_that_differ_are_said(fake_run: Any, foreign: str) -> None:
    images = choose_images("shapes", CompareOptions(bank=100, queries=100))
    subjects = [open_subject(str(fake_run("healthy", epochs=2))), measure(open_subject(foreign), images)]
    said = " ".join(cautions(Comparison(gather(subjects), images)))
    parts = ("projector and features", "d = 128 and 192", "100 and 1,000 rows", "dino.pth: no more rows")
    assert all(words in said for words in parts)


def test_probes_of_different_data_are_said(seeds: Any) -> None:
    one, two = seeds("healthy", "healthy")
    evaluated(one, "linear", top1=0.6)
    file = evaluated(two, "linear", top1=0.7)
    assert not any("not run alike" in line for line in cautions(compared(one, two)))
    file.write_text(file.read_text().replace('"shapes"', '"cifar10"'))
    assert any("its data is shapes and cifar10" in line for line in cautions(compared(one, two)))


def test_other_protocols_and_taps_have_columns_of_their_own(fake_run: Any) -> None:
    run = str(fake_run("healthy", epochs=1))
    evaluated(run, "linear", top1=0.6)
    evaluated(run, "linear", "simsiam", top1=0.5)
    evaluated(run, "cluster", tap="projector", nmi=0.3)
    grid = tables(compared(run))[1]
    cells = dict(zip(grid.columns[1:], (cell.text for cell in grid.rows[0][2]), strict=True))
    assert cells == {"Linear top-1": "60.0 %", "cluster-projector": "0.300", "linear-simsiam": "50.0 %"}


def test_evaluations_of_a_checkpoint_are_found_where_evaluate_puts_them(
    foreign: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    evaluated(foreign, "knn", top1=0.4)
    assert open_subject(foreign).values["knn_top1"] == 0.4
    (tmp_path / "other").mkdir()
    shutil.copy(foreign, tmp_path / "other")
    assert open_subject("other/dino.pth").values == {}  # of that name, but not that one


@pytest.mark.parametrize("probe", ["knn", "linear", "cluster", "finetune"])
@pytest.mark.parametrize(
    ("then", "shown"),
    [({"epoch": 3, "step": 30}, True), ({"epoch": 2, "step": 20}, False), ({"epoch": 3, "step": 25}, False)],
)
def test_an_evaluation_of_an_earlier_encoder_is_left_out_and_named(
    fake_run: Any, probe: str, then: dict[str, int], shown: bool
) -> None:
    run = fake_run("healthy", epochs=3)
    header = {"format": "fullrank-encoder", "epoch": "3", "step": "30"}
    save_file({"w": np.zeros(1, np.float32)}, run / "encoder.safetensors", header)
    with_config(run)
    evaluated(str(run), probe, top1=0.6, nmi=0.3)
    file = run / "evaluations" / f"{probe}.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "encoder": then}))
    subject = run_subject(run)
    assert (f"{probe}_top1" in subject.values) == shown
    named = [note for note in subject.notes if f"{probe} is left out" in note and "epoch 3, step 30" in note]
    assert len(named) == (not shown)


def test_runs_that_saw_what_is_held_out_here_are_said(seeds: Any, tmp_path: Path) -> None:
    for label in range(2):
        (tmp_path / "photos" / str(label)).mkdir(parents=True)
        for i in range(20):
            noise(20 * label + i).save(tmp_path / "photos" / str(label) / f"{i}.png")
    data = str(tmp_path / "photos")
    words = [with_config(Path(word), data=data) for word in seeds("healthy", "healthy")]
    opened = [open_subject(str(word)) for word in words]
    said = cautions(Comparison(gather(opened), choose_images(**shared_data(opened))))
    assert any("simsiam-s1 saw some of these in training" in line for line in said)
    said = cautions(Comparison(gather(opened[1:]), choose_images(**shared_data(opened[1:]))))
    assert not any("in training" in line for line in said)


def test_runs_of_one_seed_are_no_independent_draws(seeds: Any) -> None:
    words = [*seeds("healthy", "healthy"), *seeds("healthy", stem="again-s")]
    assert any("share a seed" in line for line in cautions(compared(*words)))


def test_what_somebody_named_stays_text(fake_run: Any, tmp_path: Path) -> None:
    run = fake_run("healthy", "<b>bold", epochs=1)
    page = write_arms(compared(str(run)), tmp_path / "page.html", "<i>title").read_text()
    assert "<b>bold" not in page and "<i>title" not in page


def damage(folder: Path) -> dict[str, str]:
    """Things that cannot be read, and what is said of each."""
    (folder / "bad.ckpt").write_bytes(b"PK no archive")
    (folder / "cut").mkdir()
    (folder / "cut" / "audit.json").write_text('{"tap": "embe')
    (folder / "empty").mkdir()
    np.save(folder / "vector.npy", np.ones(4))
    return {
        "no/such/run": "does not exist",
        "missing.npy": "does not exist",
        "resnet10tt": "unknown model",
        str(folder / "bad.ckpt"): "bad.ckpt",
        str(folder / "cut"): "is damaged",
        str(folder / "empty"): "empty",
        str(folder / "vector.npy"): "matrix",
    }


def test_what_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    for word, said in damage(tmp_path).items():
        with pytest.raises(FullrankError) as caught:
            open_subject(word)
        assert said in str(caught.value) and "\n" not in str(caught.value), word


def test_a_damaged_evaluation_is_named(fake_run: Any) -> None:
    run = fake_run("healthy", epochs=1)
    evaluated(str(run), "linear", top1=0.5).write_text('{"probe": "lin')
    with pytest.raises(FullrankError, match=r"linear\.json is damaged"):
        open_subject(str(run))


def test_what_is_of_other_images_is_named_and_nothing_is_said_to_be_of_the_same(
    foreign: str, tmp_path: Path
) -> None:
    rows = torch.randn(300, 16, generator=torch.Generator().manual_seed(0))
    np.save(tmp_path / "mine.npy", rows.numpy())
    images = choose_images("shapes", CompareOptions(bank=100, queries=64))
    subjects = [measure(open_subject(foreign), images), open_subject(str(tmp_path / "mine.npy"))]
    said = cautions(Comparison(gather(subjects), images))
    other = [line for line in said if "not of the images that went through the encoders" in line]
    assert len(other) == 1 and other[0].startswith("mine.npy (embedding): values of rows of its own")
    assert "same for every encoder" not in images.about
    assert not any("values of" in line for line in cautions(Comparison(gather(subjects[:1]), images)))
