"""Commands that README and docs show: found, and made to run on small data."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
# the first make what their commands name, and test_add_a_method.py follows one to the letter; the last is
# made by recipe_commands, of which two are parsed
OWN_TEST = ("add_a_", "recipes")
PAGES = [
    *("README.md", "CONTRIBUTING.md"),
    *sorted(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md") if not p.name.startswith(OWN_TEST)),
]
PROGRAMS = ("fullrank", "make", "pip", "python", "pytest")
INLINE = re.compile(r"`(fullrank [a-z][^`]*)`")

SETTINGS = (
    "--limit 64 --batch-size 32 --epochs 1 --backbone resnet8-w16 --image-size 32 --knn-every 1 --workers 0 "
    "--options.proj-hidden-dim 32 --options.proj-output-dim 32"
)
# placeholders, and names that stand for whatever a reader has
PLACES = {
    "METHOD": "simsiam",
    "METHOD|RECIPE": "simsiam",
    "MODEL": "runs/first",
    "WHAT": "runs/first",
    "RUN": "runs/first",
    "RUN...": "runs/first",
    "FOLDER": "images",
    "NAME": "simsiam",
    "PROBE": "knn",
    "VALUE": "-0.5",
    "FILE": "embeddings.npy",
    "photos": "images",
    "X": "images",
}
# weights that only a network brings: an untrained encoder of the same kind stands in
ENCODERS = {"resnet18": "resnet10t", "timm:resnet18": "timm:resnet10t", "timm:resnet50": "timm:resnet10t"}
SMALLER = {"200": "2", "timm": "torch"}  # epochs; and where the narrow encoder of these runs can go

NOT_RUN = {
    "fullrank adapt timm:resnet18": "the weights come from a hub; tests/cli/test_adapt.py adapts others",
    "--init timm:resnet50": "the weights come from a hub; tests/encoders start from files",
    "--data cifar10 --download": "CIFAR-10 comes from its host",
    "timm:resnet18 --data FOLDER": "the weights come from a hub; an audit of resnet18 is run untrained",
    "timm:resnet18 moco.pth.tar": "the weights come from a hub",
    "fullrank demo": "a minute of training; tests/cli/test_demo.py runs it with few epochs",
    "--image-size 64 --epochs 200": "200 epochs of a transformer",
    "fullrank lab NAME": "no name; each lab is run by its own",
    "--devices": "takes several devices; tests/training run two processes",
    "fullrank watch": "serves until it is interrupted; tests/live watch runs",
    "--live": "opens a browser; tests/live start it",
    "--slurm": "takes a cluster; tests/slurm have one",
    "fullrank jobs": "takes a cluster; tests/jobs have its programs",
    "fullrank audit features --processes": "tests/cli/test_audit_shards.py has such a folder",
    "--to fiftyone": "tests/features/test_fiftyone.py exports a map",
    "--override data=FOLDER": "for images that have moved",
}
"""Starts, or options, of commands that are parsed and not run, with the reason."""


@dataclass(frozen=True)
class Command:
    """A command, and where it stands.

    Attributes:
        text: without its comment.
        page: the first page that has it.
        inline: whether it stands within a sentence, where it may be shortened.
    """

    text: str
    page: str
    inline: bool = False

    @property
    def words(self) -> list[str]:
        """Words with the placeholders filled in."""
        return [PLACES.get(word, word) for word in shlex.split(self.text)]

    @property
    def not_run(self) -> str:
        """Why it is parsed only; empty where it is run."""
        return next((why for part, why in NOT_RUN.items() if part in self.text), "")


def found(pages: dict[str, str]) -> list[Command]:
    """Commands of pages, each once.

    Args:
        pages: path to Markdown.
    """
    commands: dict[str, Command] = {}
    for page, text in pages.items():
        for line in _lines(text):
            commands.setdefault(line, Command(line, page))
        for line in INLINE.findall(re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)):
            commands.setdefault(line, Command(line, page, inline=True))
    return list(commands.values())


def _lines(text: str) -> Iterator[str]:
    fenced = False
    for line in re.sub(r"\\\n\s*", "", text).splitlines():  # a command may go on in the next line
        if line.startswith("```"):
            fenced = not fenced
        shown = line.strip().removeprefix("$ ")
        if not (fenced or line.startswith("    ")) or shown.split(" ")[0] not in PROGRAMS:
            continue
        words = shlex.split(shown, comments=True)
        if len(words) > 1 and "=" not in words[0]:
            yield re.sub(r"\s+#.*$", "", shown).strip()


def read_pages() -> dict[str, str]:
    """The pages that are committed, by their path."""
    return {page: (ROOT / page).read_text(encoding="utf-8") for page in PAGES}
