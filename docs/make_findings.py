"""Writes docs/findings.md from the `lab.json` files of finished labs.

    python docs/make_findings.py labs/asymmetry labs/capacity ...

Each argument is the folder of a lab, as `fullrank lab NAME --out FOLDER` leaves it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HEAD = """\
# Findings

What the labs found of the papers' claims, on the presets that are named. `fullrank lab NAME --preset laptop`
repeats each on two CPU cores. Small encoders on generated shapes are not ImageNet: what is not confirmed here
is not refuted there. "±" is a standard deviation over the seeds; confirmed is what all seeds show.

Written by `docs/make_findings.py` from the labs' `lab.json`.
"""

REMARKS: dict[str, list[str]] = json.loads(Path(__file__).with_name("findings-remarks.json").read_text())
"""What a reader should know of how settings and claims came about, by lab."""


def section(found: dict[str, Any]) -> str:
    """One lab: whose claim, what was seen, and every claim with its verdict and numbers."""
    parts = f", parts {', '.join(found['parts'])}" if found["parts"] else ""
    seeds = ", ".join(map(str, found["seeds"]))
    lines = [
        f"## {found['lab']}: {found['title']}",
        "",
        f"{found['paper']}. Preset {found['preset']}{parts}, seeds {seeds}, "
        f"{found['seconds'] / 60:.0f} minutes of computing.",
        "",
        f"The papers: {found['says']}",
        "",
        f"Seen: {found['seen']}",
        "",
        "| claim | verdict | numbers |",
        "|---|---|---|",
        *(f"| {claim['text']} | {claim['verdict']} | {claim['told']} |" for claim in found["claims"]),
    ]
    notes = [*(note for note in found.get("notes", ()) if note), *REMARKS.get(found["lab"], ())]
    return "\n".join([*lines, "", *(f"- {note}" for note in notes)]).rstrip() + "\n"


def main(folders: list[str]) -> None:
    """Write the sections of these labs into the page beside this script; all others stay."""
    page = Path(__file__).with_name("findings.md")
    before = page.read_text("utf-8").split("\n## ")[1:] if page.exists() else []
    sections = {text.partition(":")[0]: f"## {text.rstrip()}\n" for text in before}
    found = [json.loads((Path(folder) / "lab.json").read_text()) for folder in folders]
    sections |= {one["lab"]: section(one) for one in found}
    page.write_text("\n".join([HEAD, *(sections[name] for name in sorted(sections))]), "utf-8")
    print(f"{len(found)} labs, {sum(len(one['claims']) for one in found)} claims")


if __name__ == "__main__":
    main(sys.argv[1:])
