"""The same views of the same images through every candidate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fullrank.collapse.audit import audit
from fullrank.collapse.label_free import FEWEST_IMAGES, label_free_measures
from fullrank.collapse.verdict import Verdict, judge
from fullrank.encoders.opening import open_encoder
from fullrank.encoders.runs import is_untrained
from fullrank.errors import DataError, UsageError
from fullrank.features.extraction import Augmentation, embed_whole
from fullrank.images.opening import open_data
from fullrank.images.sources import Source
from fullrank.options import OnProgress, PickOptions
from fullrank.selection.candidates import Candidate
from fullrank.selection.shared_images import held_out_of_all
from fullrank.training.config import TrainConfig
from fullrank.training.held_out import sample_of
from fullrank.untrusted.paths import expand_user
from fullrank.views import VIEWS

SAME_IMAGES = ("data", "image_size")
"""Settings that runs share where one choice of held-out images serves all."""


@dataclass(frozen=True)
class Images:
    """Images that every candidate sees, and how.

    Attributes:
        source: held-out images.
        preset: their views.
        count: views of each.
        seed: of the views.
        name: of the data set.
        notes: one line each.
    """

    source: Source
    preset: str
    count: int
    seed: int
    name: str
    notes: tuple[str, ...] = ()

    @property
    def about(self) -> str:
        """Which images and views, in a few words."""
        return f"{len(self.source):,} held-out images of {self.name}, {self.count} views each ({self.preset})"


@dataclass(frozen=True)
class Measured:
    """What was measured of a candidate.

    Attributes:
        measures: of its features, by name of `LABEL_FREE`; empty where it cannot be used.
        verdict: on the features; None where it cannot be used.
        why: it cannot be used.
    """

    candidate: Candidate
    measures: Mapping[str, float] = field(default_factory=dict)
    verdict: Verdict | None = None
    why: str = ""


def choose_images(candidates: Sequence[Candidate], options: PickOptions) -> Images:
    """Choose images and views: those of `options`, else those of the runs.

    Raises:
        UsageError: the runs have different data, or there is none; `--data` is the remedy. Or no such views.
    """
    runs = {str(c.run.path): c.run for c in candidates if c.run and not c.why}
    configs = [run.config() for run in runs.values()]
    if options.data:
        data = open_data(options.data, limit=None, download=options.download, max_pixels=options.max_pixels)
    elif configs and len({_images_of(config) for config in configs}) == 1:
        data = held_out_of_all(configs, options.images)
    else:
        what = _difference(configs) if configs else "encoders need images"
        raise UsageError(f"{what}: add --data with a folder, or a name of `fullrank list data`")
    source = sample_of(data.held_out, options.images, np.random.default_rng(options.seed))
    if len(source) < FEWEST_IMAGES:
        raise UsageError(
            f"{len(source)} held-out images are too few to tell encoders apart: at least {FEWEST_IMAGES} are "
            f"needed, and {options.images} wanted"
        )
    preset, notes = _preset(configs, options)
    name = options.data or data.name
    return Images(source, preset, options.views, options.seed, name, (*data.notes, *notes))


def _preset(configs: Sequence[TrainConfig], options: PickOptions) -> tuple[str, list[str]]:
    """Views that all candidates see, and a note where runs were trained on others.

    Example:
        >>> _preset([], PickOptions(data="digits"))
        ('digits', [])
    """
    if options.view_preset:
        VIEWS[options.view_preset]  # which says that there is none, and the nearest name
        return options.view_preset, []
    if not configs:
        return (options.data if options.data in VIEWS else "simsiam"), []
    own = Counter(config.views for config in configs)
    preset = own.most_common(1)[0][0]
    if len(own) == 1:
        return preset, []
    return preset, [
        f"the runs were trained on different views ({', '.join(own)}); all are compared by {preset}: "
        "--view-preset names others"
    ]


def _difference(configs: Sequence[TrainConfig]) -> str:
    """What keeps runs from having the same held-out images, in words.

    Example:
        >>> _difference([TrainConfig(data="photos", seed=0), TrainConfig(data="shapes", seed=1)])
        'the runs hold out different images, for they differ in data (photos, shapes)'
    """
    found = []
    for name in SAME_IMAGES:
        values = dict.fromkeys(str(getattr(config, name)) for config in configs)
        if len(values) > 1:
            found.append(f"{name.replace('_', '-')} ({', '.join(values)})")
    return f"the runs hold out different images, for they differ in {' and '.join(found)}"


def _images_of(config: TrainConfig) -> tuple[object, ...]:
    return tuple(getattr(config, name) for name in SAME_IMAGES)


def measure(
    candidate: Candidate, images: Images, options: PickOptions, on_progress: OnProgress | None = None
) -> Measured:
    """Send the images through a candidate and measure its features, without labels.

    One whose file is damaged or whose numbers are not finite is no error: it comes last, with the reason.
    """
    if candidate.why:
        return Measured(candidate, why=candidate.why)
    try:
        model = open_encoder(candidate.spec, **options.opening())
    except DataError as error:
        if not expand_user(candidate.spec).exists():
            raise
        return Measured(candidate, why=str(error))
    where, seen = options.device or None, Augmentation(images.count, images.preset, images.seed)
    size, name = max(1, options.batch_size // images.count), candidate.name
    z, _ = embed_whole(
        model, images.source, batch_size=options.batch_size, on_progress=on_progress, task=name, device=where
    )
    task = f"{name}, views"
    views, _ = embed_whole(
        model,
        images.source,
        batch_size=size,
        on_progress=on_progress,
        task=task,
        device=where,
        augmentation=seen,
    )
    if not (bool(z.isfinite().all()) and bool(views.isfinite().all())):
        return Measured(candidate, why="its features are not finite (NaN or infinite)")
    measures = label_free_measures(views.reshape(-1, images.count, z.shape[1]), z)
    found = audit(z, tap="features", metrics=("level",))
    untrained = is_untrained(candidate.spec) or (options.untrained and candidate.run is None)
    if untrained and found.panel is not None:
        return Measured(candidate, measures, judge(found.panel, trained=False))
    return Measured(candidate, measures, found.verdict)
