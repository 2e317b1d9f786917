"""A page for each line of work: claims, command, figure and what was found, from docs/findings.md."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from fullrank.labs import LABS
from generator.svg import LONGEST, Dot, dot_rows

FINDINGS = Path(__file__).parents[1] / "findings.md"
NUMBER = re.compile(r"([−-]?\d[\d.,]*(?:e[−-]?\d+)?) ± ([−-]?\d[\d.,]*(?:e[−-]?\d+)?)")
KINDS = {"confirmed": "good", "not confirmed": "bad", "not decidable": "plain"}
PUBLISHED = {
    "capacity": ("imagenet/simsiam-resnet18", "imagenet/nnsiam", "imagenet/distill"),
    "codes": ("cifar10/cplearn", "cifar10/gedi"),
    "contrastive-toys": ("imagenet/directclr",),
    "data-order": ("imagenet/simsiam-resnet18",),
    "eigenmodes": ("cifar10/directpred", "cifar10/isoloss", "cifar10/byol-noema"),
    "rank-difference": ("cifar10/rdm_simsiam", "cifar10/rdm_byol", "imagenet/rdm_simsiam-target-1.0"),
    "asymmetry": ("imagenet/asym-meanenc", "cifar10/teacher_student-copied"),
}


def pages() -> Iterator[tuple[str, str]]:
    """Path and text of each lab's page, and of their index."""
    texts = sections()
    names = [name for name, lab in LABS.items() if lab.__module__.startswith("fullrank.")]
    yield "reproduce/index.md", index(names, texts)
    for name in names:
        yield f"reproduce/{name}.md", page(name, texts.get(name, ""))


def sections() -> dict[str, str]:
    """The section of each lab in the findings, by its name."""
    found = FINDINGS.read_text(encoding="utf-8").split("\n## ")[1:]
    return {text.partition(":")[0]: text.partition("\n")[2].strip() for text in found}


def claims(section: str) -> list[tuple[str, str, str]]:
    """Claim, verdict and numbers of each row of a section's table."""
    rows = [line.strip("| \n").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    return [(claim, verdict, " | ".join(rest)) for claim, verdict, *rest in rows[1:]]


def index(names: list[str], texts: dict[str, str]) -> str:
    """All labs with what they ask and how their claims fared."""
    lines = [
        "# Reproduce a paper",
        "A lab is a paper's experiment as one command: three seeds, resumable piece by piece, minutes on two "
        "CPU cores with the laptop preset, the published settings with `--preset paper`. Small encoders on "
        "generated shapes are not ImageNet: what is not confirmed here is not refuted there.",
        "| lab | asks | confirmed | not confirmed | not decidable |\n|---|---|--:|--:|--:|",
    ]
    for name in names:
        verdicts = [verdict for _, verdict, _ in claims(texts.get(name, ""))]
        counts = " | ".join(str(verdicts.count(kind)) for kind in KINDS)
        lines[-1] += f"\n| [{name}]({name}.md) | {LABS[name].title} | {counts} |"
    lines.append("[All findings on one page](../findings.md). [Add a lab](../add_a_lab.md).")
    return "\n\n".join(lines) + "\n"


def page(name: str, section: str) -> str:
    """The page of one lab."""
    lab = LABS[name]
    parts = "\n".join(f"- `{part}`: {words}" for part, words in lab.parts.items())
    found = claims(section)
    seen = re.search(r"^Seen: (.*)$", section, re.MULTILINE)
    setting = re.search(r"(Preset .*?computing\.)", section)
    figures = [figure for claim, _, numbers in found if (figure := _figure(claim, numbers))]
    notes = [line for line in section.splitlines() if line.startswith("- ")]
    recipes = "\n".join(f"    fullrank train {recipe} --data FOLDER" for recipe in PUBLISHED.get(name, ()))
    lines = [
        f"# {lab.title}",
        f"{lab.paper}.",
        "## Claim",
        lab.says,
        "## Command",
        f"    fullrank lab {name}\n    fullrank lab {name} --preset paper",
        f"Parts, of which `--parts` names some:\n\n{parts}" if parts else "",
        f"Published settings as recipes:\n\n{recipes}" if recipes else "",
        "## What we found",
        f"*{setting[1]}*" if setting else "Not run yet.",
        seen[1] if seen else "",
        "| claim | verdict | numbers |\n|---|---|---|"
        + "".join(f"\n| {claim} | {verdict} | {numbers} |" for claim, verdict, numbers in found)
        if found
        else "",
        "## Figures" if figures else "",
        "Mean and standard deviation over the seeds of what each claim compares." if figures else "",
        *figures,
        "## What to know" if notes else "",
        "\n".join(notes),
    ]
    return "\n\n".join(line for line in lines if line) + "\n"


def _figure(claim: str, numbers: str) -> str:
    """What a claim compares, as dots with bars; empty where it has not two numbers of one kind."""
    numbers = numbers.partition("; judged")[0].partition("; modes")[0]
    found = []
    end = 0
    for match in NUMBER.finditer(numbers):
        label = numbers[end : match.start()].strip(" ,;:").removeprefix("and ").strip()
        value, spread = (
            float(text.replace("−", "-").replace(",", "").rstrip(".")) for text in match.groups()
        )
        found.append((label or "value", value, spread))
        end = match.end()
    if not 2 <= len(found) <= 6 or len({label for label, _, _ in found}) < len(found):
        return ""
    if max(abs(value) for _, value, _ in found) > 300 * max(min(abs(v) for _, v, _ in found), 1e-12):
        return ""
    rows = {
        _short(label): [Dot(value, "good", spread, f"{value:g} ± {spread:g}")]
        for label, value, spread in found
    }
    if len(rows) < len(found):
        return ""
    return dot_rows(rows, _quantity(found[0][0]) or "value", claim)


def _short(label: str) -> str:
    return label if len(label) <= LONGEST else f"…{label[1 - LONGEST :]}"


def _quantity(label: str) -> str:
    """What is measured: the words of the first label before those that name the arm."""
    return re.split(r" (?:of|with|after|before|at|in|on) |, ", label)[0]
