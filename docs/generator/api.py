"""The reference, from `fullrank.api` down: a page a room, made by mkdocstrings from the docstrings."""

from __future__ import annotations

from collections.abc import Iterator

ROOMS = {
    "fullrank": (
        "The library",
        "What `import fullrank` offers; the command line calls the same functions.",
        "api",
    ),
    "options": ("Options", "Option classes that the functions take, by name or as one object.", "options"),
    "collapse": (
        "Collapse",
        "Metrics, panels, verdicts and the monitor; needs torch, numpy, safetensors and pyyaml only.",
        "collapse",
    ),
    "metrics": (
        "Definitions of metrics",
        "The table that lists, panels and audits are made from.",
        "collapse.metrics",
    ),
    "methods": ("Methods", "The contract of a method, and what its author needs.", "methods"),
    "views": ("Views", "How images are seen.", "views"),
    "images": ("Images", "Which images, and which one when.", "images.opening images.sources"),
    "encoders": (
        "Encoders",
        "Anybody's encoder: opened, tapped, exported.",
        "encoders.opening encoders.encoder",
    ),
    "features": ("Features", "Embeddings on disk.", "features.embeddings"),
    "probes": (
        "Probes",
        "k-NN, logistic regression and clustering of tensors.",
        "probes.knn probes.logistic probes.clusters",
    ),
    "integrations": (
        "Integrations",
        "The monitor in other people's loops.",
        "integrations.loop integrations.lightning integrations.huggingface integrations.accelerate",
    ),
    "labs": ("Labs", "The contract of a lab.", "labs"),
    "errors": ("Errors", "What is raised, and the exit codes.", "errors"),
}


def pages() -> Iterator[tuple[str, str]]:
    """Path and text of each page of the reference."""
    for room, (title, words, modules) in ROOMS.items():
        blocks = "\n".join(f"::: fullrank.{module}\n" for module in modules.split())
        yield f"api/{room}.md", f"# {title}\n\n{words}\n\n{blocks}"
