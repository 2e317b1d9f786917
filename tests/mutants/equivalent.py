"""Mutants that no test can tell from the source, each with its reason."""

from __future__ import annotations

from typing import NamedTuple


class Equivalent(NamedTuple):
    """A change that changes nothing that is promised: its lines, stripped, and why.

    Without `after`, any change of a line that begins with `before`.
    """

    target: str
    path: str
    before: str
    after: str
    reason: str


_COLLAPSE = "src/fullrank/collapse"
_METHODS = "src/fullrank/methods"
_TRAINING = "src/fullrank/training"

EQUIVALENT: tuple[Equivalent, ...] = (
    Equivalent(
        "collapse",
        f"{_COLLAPSE}/metrics/clusters.py",
        "ANCHORS = 192  # rows around which distances are sorted; more among fewer rows, at most",
        "ANCHORS = 193  # rows around which distances are sorted; more among fewer rows, at most",
        "the size of a sample: one anchor more costs time and changes no promise",
    ),
    Equivalent(
        "collapse",
        f"{_COLLAPSE}/sampling.py",
        "kept = int((self._keys < self._cut).sum()) if self._share < 1.0 else len(self._keys)",
        "kept = int((self._keys <= self._cut).sum()) if self._share < 1.0 else len(self._keys)",
        "differs where a hash of 64 bits is the border itself",
    ),
    Equivalent(
        "collapse",
        f"{_COLLAPSE}/nearest_rows.py",
        "grouped, ends = place.argsort(stable=True), counts.cumsum(0)",
        "grouped, ends = place.argsort(stable=True), counts.cumsum( -1)",
        "the first dimension of a vector is its last",
    ),
    Equivalent(
        "methods",
        f"{_METHODS}/_two_branch.py",
        "return [(-1, -1, mean_but(-1, p), mean_but(-1, z))]",
        "return [(- 2, -1, mean_but(-1, p), mean_but(-1, z))]",
        "both numbers name no view, and are compared with views only",
    ),
    Equivalent(
        "methods",
        f"{_METHODS}/swav.py",
        "in_use = len(self.queue[0]) if self.info.epoch >= config.epoch_queue_starts else 0",
        "in_use = len(self.queue[ 1]) if self.info.epoch >= config.epoch_queue_starts else 0",
        "both queues have one length",
    ),
    Equivalent(
        "collapse",
        f"{_COLLAPSE}/metrics/neighbours.py",
        "distances = near.distances(2)",
        "distances = near.distances( 3)",
        "twenty are found, or all, and the two nearest of them are taken",
    ),
    Equivalent(
        "checkpoint",
        f"{_TRAINING}/checkpoint_files.py",
        "MOST_DIGESTS = 256  # of files that were written last: far more than are kept",
        "MOST_DIGESTS = 257  # of files that were written last: far more than are kept",
        "a bound far above what is needed; that there is one is tested",
    ),
    *(
        Equivalent(target, path, before, "", "how much is done at a time, which changes no value")
        for target, path, before in (
            ("collapse", f"{_COLLAPSE}/blocks.py", "CACHED = 1 << 16"),
            ("collapse", f"{_COLLAPSE}/kmeans.py", "ROWS = 2048"),
            ("collapse", f"{_COLLAPSE}/metrics/gaussian.py", "_AT_ONCE = 1 << 15"),
            ("collapse", f"{_COLLAPSE}/moments.py", "_CHUNK_ELEMENTS = 1 << 23"),
            ("collapse", f"{_COLLAPSE}/nearest_rows.py", "AT_ONCE = 1 << 17"),
            ("collapse", f"{_COLLAPSE}/nearest_rows.py", "_BANK, _QUERIES = 16384, 1024"),
            ("collapse", f"{_COLLAPSE}/one_pass.py", "CHUNK_ELEMENTS = 1 << 23"),
            ("collapse", f"{_COLLAPSE}/peers.py", "AT_ONCE = 1 << 26"),
            ("collapse", f"{_COLLAPSE}/peers.py", "PIVOTS = 256"),
            ("collapse", f"{_COLLAPSE}/sampling.py", "MERGED = 256"),
            ("methods", f"{_METHODS}/_cplearn_loss.py", "ELEMENTS = 1 << 21"),
            ("checkpoint", f"{_TRAINING}/checkpoint_files.py", "shutil.copyfileobj(file, target, 1 << 20)"),
        )
    ),
    Equivalent(
        "checkpoint",
        f"{_TRAINING}/checkpoint_files.py",
        "except ImportError:  # not on Windows",
        "except CosmicRayTestingException:  # not on Windows",
        "differs on Windows alone",
    ),
)
