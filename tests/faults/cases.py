"""The commands that are killed, each as small as it can be."""

from __future__ import annotations

from faults.harness import Case

WIDTHS = (
    *("--options.proj-hidden-dim", "16", "--options.proj-output-dim", "16"),
    *("--options.pred-hidden-dim", "8"),
)
TRAINING = (
    *("--data", "digits", "--limit", "48", "--backbone", "resnet8-w8", "--batch-size", "16"),
    *("--epochs", "2", "--level-every", "1", "--watch-every", "1", "--watch-images", "64"),
    *("--knn-bank", "48", "--diagnostics-every", "0", "--workers", "0"),
    *WIDTHS,
)
TRAIN = ("train", "simsiam", *TRAINING, "--quiet", "--out", "{folder}/run")

COLLAPSING = ("--options.no-stop-gradient", "--lr", "2", "--epochs", "6")

CASES = [
    Case("train", ("train", "simsiam", *TRAINING, "--resume", "auto", "--quiet", "--out", "{out}")),
    Case(
        "train and resume",
        (
            *("train", "byol", *TRAINING, "--keep-every", "1", "--checkpoint-every", "2"),
            *("--quiet", "--out", "{out}"),
        ),
        again=("resume", "{out}", "--quiet"),
    ),
    Case(
        "stopped as it collapsed",
        (
            *("train", "simsiam", *TRAINING, *COLLAPSING, "--on-collapse", "stop", "--patience", "1"),
            *("--resume", "auto", "--quiet", "--out", "{out}"),
        ),
        is_long=True,
    ),
    Case("embed", ("embed", "{folder}/run", "--data", "digits", "--out", "{out}"), before=TRAIN),
    Case("audit", ("audit", "{folder}/run", "--out", "{out}"), before=TRAIN, is_long=True),
    Case("export", ("export", "{folder}/run", "--to", "torch", "--out", "{out}"), before=TRAIN, once=True),
    Case(
        "sweep",
        ("sweep", "simsiam", "--over", "lr=0.05,0.1", *TRAINING, "--epochs", "1", "--out", "{out}", "--json"),
        is_long=True,
    ),
    Case(
        "lab",
        ("lab", "eigenmodes", "--preset", "tiny", "--seeds", "0", "--out", "{out}", "--no-figures"),
        is_long=True,
    ),
]
