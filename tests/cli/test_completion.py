"""What a shell completes: commands, options, their choices, and names of files."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from cli.helpers import call
from fullrank.cli import COMMANDS
from fullrank.cli.evaluate import PROBES
from fullrank.cli.listing import LISTS
from fullrank.labs import LABS
from fullrank.methods import METHODS
from fullrank.training.config import TrainConfig

BASH = shutil.which("bash")
ASK = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
_fullrank
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if BASH is None:
        pytest.skip("no bash")
    called = call("--print-completion", "bash")
    assert called.code == 0 and called.err == ""
    path = tmp_path_factory.mktemp("completion") / "fullrank"
    path.write_text(called.out)
    return path


def completed(script: Path, *words: str) -> list[str]:
    command = [str(BASH), "--norc", "-c", ASK, "bash", str(script), "fullrank", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.split()


def test_every_command_is_completed(script: Path) -> None:
    assert set(completed(script, "")) >= set(COMMANDS)
    assert completed(script, "tr") == ["train"]


def test_every_option_of_a_training_is_completed(script: Path) -> None:
    known = set(completed(script, "train", "byol", "--"))
    names = {f.name for f in dataclasses.fields(TrainConfig)} - {"method", "options"}
    assert known >= {f"--{name.replace('_', '-')}" for name in names} | {"--live", "--help", "--no-nesterov"}
    assert not any(flag in known for flag in ("--method", "--options"))


@pytest.mark.parametrize("method", list(METHODS))
def test_a_methods_own_options_follow_its_name(script: Path, method: str) -> None:
    own = {f"--options.{f.name.replace('_', '-')}" for f in dataclasses.fields(METHODS[method].Config)}
    found = {word for word in completed(script, "train", method, "--opti") if word.startswith("--options.")}
    assert {word for word in found if not word.startswith("--options.no-") or word in own} == own


@pytest.mark.parametrize("name", list(COMMANDS))
def test_no_option_is_completed_that_the_command_refuses(script: Path, name: str) -> None:
    words = {"evaluate": ("evaluate", "knn"), "train": ("train", "simsiam")}.get(name, (name,))
    helped = call(*words, "--help-all" if name == "train" else "--help").out
    helped = "".join(helped.split()).replace("[no-]", "")
    flags = completed(script, *words, "--")
    if name in ("evaluate", "lab", "sweep"):  # of several forms in one, or of train's
        assert "--json" in flags
        return
    bare = [flag.replace("--no-", "--", 1).replace(".no-", ".") for flag in flags]
    assert {flag for flag in bare if flag not in helped} - {"--help", "--help-all"} == set()


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("train", "byol", "--on-collapse", ""), ["warn", "stop", "rollback"]),
        (("train", "byol", "--on-collapse", "=", "st"), ["stop"]),
        (("train", "byol", "--on-collapse", "="), ["warn", "stop", "rollback"]),
        (("train", "byol", "--optimizer", "ada"), ["adam", "adamw"]),
        (("train", "cifar10/simsiam-c"), ["cifar10/simsiam-cpu"]),
        (("train", "byol", "--views", "dino"), ["dino-multicrop"]),
        (("export", "runs/first", "--to", "o"), ["onnx"]),
        (("audit", "x.npy", "--metrics", "rankme_u"), ["rankme_uncentred", "rankme_unit"]),
        (("--print-completion", ""), ["bash", "fish", "zsh"]),
        (("train", "byol", "--options.mean-enc"), ["--options.mean-encoding"]),
        (("train", "cifar10/simsiam-cpu", "--options.num-proto"), []),
        (("audit", "x.npy", "--metrics", "level,rankme_u"), ["level,rankme_uncentred", "level,rankme_unit"]),
        (("explain", "loss", "0.5", "--method", "sims"), ["simsiam"]),
        (("list", "methods", "sims"), ["simsiam"]),
        (("train", "simsiam", "--backbone", "resnet8-w1"), ["resnet8-w16"]),
        (("train", "byol", "--data", "cifar"), ["cifar10", "cifar100"]),
        (("audit", "resnet18", "--data", "=", "dig"), ["digits"]),
        (("audit", "runs/first", "--taps", "backbone,proj"), ["backbone,projector"]),
        (("evaluate", "knn", "runs/first", "--tap", "f"), ["features"]),
        (("audit", "x.npy", "--fail-on", "comp"), ["complete"]),
        (("audit", "x.npy", "--fail-on", "complete,dim"), ["complete,dimensional"]),
        (("lab", "asymmetry", "--parts", "asym-s"), ["asym-siam"]),
        (("lab", "rank-difference", "--parts", "asym-s"), []),
        (("lab", "failures", "--pre"), ["--preset"]),
        (("train", "byol", "--log", "wan"), ["wandb"]),
        (("resume", "runs/first", "--log", "mlf"), ["mlflow"]),
        (("evaluate", "linear", "runs/first", "--protocol", "rdm-s"), ["rdm-simsiam"]),
    ],
)
def test_choices_are_completed(script: Path, words: tuple[str, ...], found: list[str]) -> None:
    assert completed(script, *words) == found


def test_words_after_a_command_are_completed(script: Path) -> None:
    assert completed(script, "list", "") == list(LISTS)
    assert completed(script, "evaluate", "") == list(PROBES)


def test_names_of_data_stand_beside_folders(
    script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "digits of mine").mkdir()
    monkeypatch.chdir(tmp_path)
    done = subprocess.run(
        [str(BASH), "--norc", "-c", ASK, "bash", str(script), "fullrank", "audit", "x", "--data", "dig"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["digits", "digits of mine"]


@pytest.mark.parametrize("lab", list(LABS))
def test_parts_and_presets_are_those_of_the_lab(script: Path, lab: str) -> None:
    assert completed(script, "lab", lab, "--parts", "") == list(LABS[lab].parts)
    assert completed(script, "lab", lab, "--preset", "") == list(LABS[lab].presets)


@pytest.mark.parametrize("words", [("audit", "feat"), ("train", "byol", "--data", "pho"), ("watch", "")])
def test_files_are_left_to_the_shell(script: Path, words: tuple[str, ...]) -> None:
    assert completed(script, *words) == []
    assert "complete -o default -F _fullrank fullrank" in script.read_text()


@pytest.mark.parametrize("shell", ["bash", "fish", "zsh"])
def test_the_script_is_right_by_its_own_shell(tmp_path: Path, shell: str) -> None:
    if (program := shutil.which(shell)) is None:
        pytest.skip(f"no {shell}")
    (tmp_path / "script").write_text(call("--print-completion", shell).out)
    assert subprocess.run([program, "-n", str(tmp_path / "script")], capture_output=True).returncode == 0


def test_it_is_printed_without_torch() -> None:
    code = "import sys; from fullrank.cli import main; main(['--print-completion=fish'])"
    code += "; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "-n '__fullrank_in train' -l lr -r" in done.stdout


@pytest.fixture(scope="module")
def fish(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("fish") is None:
        pytest.skip("no fish")
    folder = tmp_path_factory.mktemp("fish")
    (folder / "script").write_text(call("--print-completion", "fish").out)
    (folder / "a-file").touch()
    return folder


def fished(folder: Path, line: str) -> list[str]:
    code = 'source script; complete -C "$argv[1]"'
    done = subprocess.run(
        ["fish", "--no-config", "-c", code, line], capture_output=True, text=True, check=True, cwd=folder
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("--print-completion ", ["bash", "fish", "zsh"]),
        ("evaluate ", sorted(PROBES)),
        ("explain ", ["loss"]),
        ("explain loss 0.5 --method sims", ["simsiam"]),
        ("list methods sims", ["simsiam"]),
        ("train byol --on-collapse ", ["rollback", "stop", "warn"]),
        ("train byol --on-collapse=s", ["--on-collapse=stop"]),
        ("train byol --backbone resnet8-w1", ["resnet8-w16"]),
        ("audit x.npy --metrics level,rankme_un", ["level,rankme_uncentred", "level,rankme_unit"]),
        ("audit a-f", ["a-file"]),
        ("train byol --data dig", ["digits"]),
        ("train byol --data a-", ["a-file"]),
        ("audit x.npy --fail-on complete,dim", ["complete,dimensional"]),
        ("lab asymmetry --parts asym-s", ["asym-siam"]),
        ("lab asymmetry --preset ", ["laptop", "paper", "tiny"]),
    ],
)
def test_fish_offers_what_fits_and_no_text_beside_a_choice(fish: Path, line: str, found: list[str]) -> None:
    assert fished(fish, f"fullrank {line}") == found


@pytest.mark.parametrize("place", ["lab ", "list ", "list methods "])
def test_fish_offers_no_files_where_a_name_is_wanted(fish: Path, place: str) -> None:
    found = fished(fish, f"fullrank {place}")
    assert found and "a-file" not in found


@pytest.mark.parametrize("method", ["simsiam", "cifar10/simsiam-cpu", "dino"])
def test_fish_offers_the_options_of_that_method_alone(fish: Path, method: str) -> None:
    own = {
        f.name.replace("_", "-")
        for f in dataclasses.fields(METHODS[method.removeprefix("cifar10/").removesuffix("-cpu")].Config)
    }
    found = {line.split("\t")[0] for line in fished(fish, f"fullrank train {method} --options.")}
    assert {name for name in found if ".no-" not in name or name[10:] in own} == {
        f"--options.{n}" for n in own
    }


@pytest.mark.parametrize(
    ("line", "last"),
    [
        ("train simsiam --on-collapse=s", "--on-collapse=stop"),
        ("train simsiam --optimizer=lar", "--optimizer=lars"),
        ("audit x.npy --metrics level,rankme_uni", "level,rankme_unit"),
        ("explain loss 0.5 --method sims", "simsiam"),
        ("train simsiam --data digi", "digits"),
        ("audit x.npy --fail-on complete,dim", "complete,dimensional"),
        ("lab asymmetry --parts asym-s", "asym-siam"),
    ],
)
def test_zsh_completes_what_is_typed(tmp_path: Path, line: str, last: str) -> None:
    if shutil.which("zsh") is None:
        pytest.skip("no zsh")
    (tmp_path / "script").write_text(call("--print-completion", "zsh").out)
    ours, theirs = os.openpty()
    environment = {**os.environ, "HOME": str(tmp_path), "ZDOTDIR": str(tmp_path), "TERM": "dumb"}
    shell = subprocess.Popen(
        ["zsh", "-f", "-i"], stdin=theirs, stdout=theirs, stderr=theirs, cwd=tmp_path, env=environment
    )
    os.close(theirs)
    typed = f"source ./script; fullrank() {{ print -rl -- $@ > typed }}\nfullrank {line}\t\nexit\n"
    os.write(ours, typed.encode())
    with suppress(OSError):  # what a terminal says when its last process is gone
        while os.read(ours, 4096):
            pass
    os.close(ours)
    shell.wait()
    assert (tmp_path / "typed").read_text().split()[-1] == last
