"""Every command that README and docs show is one: its words are parsed, and what can run here is run."""

from __future__ import annotations

import contextlib
import importlib
import re
import shutil
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from cli.helpers import Called, call
from docs.commands import ENCODERS, NOT_RUN, PAGES, ROOT, SETTINGS, SMALLER, Command, found, read_pages
from fullrank.cli import COMMANDS, arguments
from fullrank.errors import FullrankError, UsageError
from fullrank.jobs.slurm_options import split_slurm
from fullrank.training.recipe_commands import recipe_commands
from fullrank.training.recipes import load_recipe

EVERY = found(read_pages())
OURS = [command for command in EVERY if command.words[0] == "fullrank"]
SHOWN = [command for command in OURS if not command.inline and command.words[1] in COMMANDS]
RUN = [command for command in SHOWN if not command.not_run]


class Parsed(FullrankError):
    """The words of a command were understood."""


@pytest.fixture
def parser(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands end where their words are parsed."""
    parse = arguments.parse

    def parsed(kind: Any, words: Sequence[str], prog: str, default: Any = None) -> Any:
        parse(kind, words, prog, default)
        raise Parsed

    for name in COMMANDS:
        monkeypatch.setattr(_module(name), "parse", parsed)


@pytest.mark.parametrize("command", SHOWN, ids=lambda command: command.text)
def test_a_command_is_understood(command: Command, parser: None) -> None:
    words = [word for word in split_slurm(command.words[1:])[1] if word != "--help"]
    with pytest.raises(Parsed):
        _module(words[0]).run(words[1:])


@pytest.mark.parametrize("name", ["imagenet/simsiam", "imagenet100/dino"])
def test_the_commands_of_a_recipe_are_understood(name: str, parser: None) -> None:
    for text in recipe_commands(name, load_recipe(name).settings).values():
        words = split_slurm(text.partition("fullrank ")[2].split())[1]
        with pytest.raises(Parsed):
            _module(words[0]).run(words[1:])


@pytest.mark.parametrize(
    "text", ["train simsiam --data FOLDER --epoch 3", "audit x.npy --fail-at dimensional", "pick --image x"]
)
def test_a_misspelt_command_is_noticed(text: str, parser: None) -> None:
    name, *words = text.split()
    with pytest.raises(UsageError):
        _module(name).run(words)


def test_inline_commands_name_commands_and_options_that_there_are() -> None:
    helps: dict[str, str] = {}
    wrong = []
    for command in OURS:
        words = command.text.split()[1:]
        if words[0] not in COMMANDS and words[0] not in ("COMMAND", "--print-completion"):
            wrong.append(f"{command.page}: {command.text}")
            continue
        options = [word.split("=")[0] for word in words if word.startswith("--")]
        for option in options if command.inline else ():
            text = helps.setdefault(words[0], _help(words))
            if option not in ("--help", "--help-all", "--version") and f"{option} " not in text:
                wrong.append(f"{command.page}: {command.text}: no {option}")
    assert wrong == []


def _help(words: Sequence[str]) -> str:
    extra = {
        "train": ["simsiam", "--help-all"],
        "evaluate": ["linear", "--help"],
        "lab": ["failures", "--help"],
    }
    text = call(words[0], *extra.get(words[0], ["--help"])).out
    return re.sub(r"--\[no-\]", "--", text).replace(",", " ")


def _module(name: str) -> Any:
    return importlib.import_module(f"fullrank.cli.{'listing' if name == 'list' else name}")


def test_what_is_not_run_is_shown_somewhere() -> None:
    shown = [command.text for command in EVERY]
    unused = [part for part in NOT_RUN if not any(part in text for text in shown)]
    assert unused == []


def test_make_targets_scripts_and_extras_are_there() -> None:
    makefile = (ROOT / "Makefile").read_text()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    missing = []
    for command in EVERY:
        program, *words = command.words
        if program == "make" and not re.search(rf"^{words[0]}:", makefile, re.MULTILINE):
            missing.append(command.text)
        if program == "python" and words[0].endswith(".py") and not (ROOT / words[0]).is_file():
            missing.append(command.text)
        if program == "pip":
            named = re.findall(r"\[([\w,]+)\]", command.text)
            missing += [command.text for names in named for name in names.split(",") if name not in extras]
        if program == "pytest":
            paths = [word for word in words if word.startswith("tests/")]
            missing += [command.text for path in paths if not (ROOT / path).exists()]
    assert missing == []


@pytest.mark.parametrize("page", ["README.md", "docs/start.md"])
def test_the_python_of_a_page_runs(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", read_pages()[page], re.MULTILINE | re.DOTALL)
    for block in blocks:
        exec(block, {})
    assert blocks and "healthy" in capsys.readouterr().out


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with all that the pages name: images, runs, embeddings, a checkpoint of MoCo."""
    import numpy as np
    import torch
    from PIL import Image

    from encoders.foreign_layouts import resnet

    place, patched = tmp_path_factory.mktemp("reader"), pytest.MonkeyPatch()
    numbers = np.random.default_rng(0)
    for i in range(160):
        folder = place / "images" / f"class{i % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = numbers.integers(0, 120, (32, 32, 3)) + 100 * (i % 2)
        Image.fromarray(pixels.astype("uint8")).save(folder / f"{i:03d}.png")
    np.save(place / "embeddings.npy", numbers.standard_normal((400, 32)).astype("float32"))
    state = {f"module.encoder_q.{key}": value for key, value in resnet().state_dict().items()}
    torch.save({"state_dict": state, "arch": "resnet18"}, place / "moco.pth.tar")
    for name in ("SLURM_JOB_ID", "TORCHELASTIC_RUN_ID"):
        patched.delenv(name, raising=False)
    for run, extra in {"first": "", "a": "--seed 1", "b": "--seed 1 --lr 0.01"}.items():
        command = f"train simsiam --data images --keep-every 1 --out runs/{run} {SETTINGS} {extra}"
        assert _ran(place, command.split()).code == 0
    broken = "--options.no-stop-gradient --options.no-output-bn --lr 0.5 --epochs 4"
    command = f"train simsiam --data shapes --out runs/demo/no-stop-gradient {SETTINGS} {broken}"
    assert _ran(place, command.split()).code == 0
    shutil.copytree(place / "runs" / "a", place / "runs" / "sweep" / "a")
    shutil.copytree(place / "runs" / "b", place / "runs" / "sweep" / "b")
    yield place
    patched.undo()


def _ran(place: Path, words: Sequence[str]) -> Called:
    """Run a command in this process, where everything is imported already."""
    with contextlib.chdir(place):
        return call(*words)


def small(command: Command, out: Path) -> list[str]:
    """Words of a command with settings that take seconds: what its option names is kept."""
    words = [ENCODERS.get(word, word) for word in command.words[1:]]
    if "--download" in words:
        words = [word for word in words if word != "--download"] + ["--untrained", "--image-size", "32"]
    words = [SMALLER.get(word, word) for word in words]
    name = words[0]
    if "--resume" in words:  # with the settings of the run that is there
        words += ["--keep-every", "1", *SETTINGS.split()]
    elif name in ("train", "sweep") and "--help" not in words:
        named = {word.split("=")[0] for word in words if word.startswith("--")}
        pairs = zip(SETTINGS.split()[::2], SETTINGS.split()[1::2], strict=True)
        words += [word for pair in pairs if pair[0] not in named for word in pair if "options" not in pair[0]]
        if "--out" not in named:
            words += ["--out", str(out)]
    extra = {
        "lab": ["--preset", "tiny", "--seeds", "0", "--out", str(out)],
        "cure": ["--seeds", "1", "--most", "1", "--minutes", "1"],
        "pick": ["--images", "40", "--views", "2"],
        "adapt": ["--epochs", "1", "--out", str(out)],
    }
    return words + [word for word in extra.get(name, []) if word not in words]


@pytest.mark.slow
@pytest.mark.parametrize("command", RUN, ids=lambda command: command.text)
def test_a_command_runs(command: Command, place: Path, tmp_path: Path) -> None:
    words = small(command, tmp_path / "out")
    kept = words[words.index("--out") + 1] if "--out" in words else ""
    if command.words[1] == "train" and "--resume" not in words and (place / kept).exists() and kept:
        words[words.index("--out") + 1] = str(tmp_path / "again")  # the page trains it once, as `place` did
    if command.words[1] == "resume":  # each from the run as it was trained
        shutil.copytree(place / "runs" / "first", tmp_path / "first")
        words = [str(tmp_path / "first") if word == "runs/first" else word for word in words]
    done = _ran(place, words)
    collapsed = {"--fail-on", "--on-collapse"} & set(words)
    expected = {0, 3} if collapsed else {0}
    assert done.code in expected, f"{command.page}: {' '.join(words)}\n{done.out}\n{done.err}"


def test_every_page_is_read() -> None:
    assert "docs/symptoms.md" in PAGES and len(SHOWN) > 60
