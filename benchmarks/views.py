"""Views a second: SimSiam's for images of 32 pixels, ours beside torchvision on PIL images and beside kornia.

All three crop, resize (bicubic), mirror, jitter, grey and normalise by the same recipe, `simsiam-cifar`.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from measuring import Row, as_shipped, beside, in_turns
from PIL import Image

from fullrank.malloc import keep_freed_memory
from fullrank.views import VIEWS, Views

SIZE, BATCH, BATCHES, RECIPE = 32, 256, 4, "simsiam-cifar"
MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)


def pil_view(size: int = SIZE):  # type: ignore[no-untyped-def]
    """The recipe as torchvision has it for one PIL image."""
    from torchvision import transforms as T

    view = VIEWS[RECIPE].views[0]
    assert view.crop and not view.blur_p
    jitter = T.ColorJitter(view.brightness, view.contrast, view.saturation, view.hue)
    return T.Compose(
        [
            T.RandomResizedCrop(size, view.crop, view.ratio, T.InterpolationMode.BICUBIC),
            T.RandomHorizontalFlip(view.flip_p),
            T.RandomApply([jitter], view.jitter_p),
            T.RandomGrayscale(view.gray_p),
            T.ToTensor(),
            T.Normalize(MEAN, STD),
        ]
    )


def _kornia(cropping: str) -> torch.nn.Module:
    from kornia import augmentation as K

    view = VIEWS[RECIPE].views[0]
    crop, ratio = view.crop, view.ratio
    jitter = (view.brightness, view.contrast, view.saturation, view.hue)
    return torch.nn.Sequential(
        K.RandomResizedCrop((SIZE, SIZE), crop, ratio, resample="bicubic", cropping_mode=cropping),
        K.RandomHorizontalFlip(p=view.flip_p),
        K.ColorJitter(*jitter, p=view.jitter_p),
        K.RandomGrayscale(p=view.gray_p),
        K.Normalize(mean=torch.tensor(MEAN), std=torch.tensor(STD)),
    )


def rows(repeats: int) -> list[Row]:
    """At one thread, where the bars are, and at all of them; kornia crops in whichever way is faster here."""
    keep_freed_memory()  # as a run does
    images = torch.randint(0, 256, (BATCHES * BATCH, 3, SIZE, SIZE), dtype=torch.uint8)
    pictures = [Image.fromarray(np.asarray(image.permute(1, 2, 0))) for image in images]
    views, view, generator = Views(RECIPE, SIZE, MEAN, STD), pil_view(), torch.Generator()
    croppings = {name: _kornia(name) for name in ("slice", "resample")}

    def ours() -> None:
        for batch in images.split(BATCH):
            views(batch, views.sample(BATCH, SIZE, SIZE, generator))

    def torchvision() -> None:
        for _ in range(2):
            torch.stack([view(picture) for picture in pictures])

    def kornia(by: str) -> None:
        with torch.no_grad():
            for batch in images.split(BATCH):
                floats = batch.float() / 255
                croppings[by](floats), croppings[by](floats)

    table, most = [], torch.get_num_threads()
    for threads in dict.fromkeys((1, most)):
        torch.set_num_threads(threads)
        tried, _ = in_turns(3, {name: partial(kornia, name) for name in croppings})
        cropping = min(tried, key=lambda name: min(tried[name]))
        ours()
        ways = {"ours": ours, "kornia": as_shipped(partial(kornia, cropping))}
        if threads == 1:
            ways["torchvision PIL"] = as_shipped(torchvision)
        seconds, _ = in_turns(repeats, ways)
        bars = {"torchvision PIL": 12.0, "kornia": 3.0 if threads == 1 else None}
        notes = {"kornia": f"cropping by {cropping}"}
        table += [
            beside(
                f"views, {threads} thread{'s' * (threads > 1)}", seconds, peer, bars[peer],
                work=2 * len(images), measure="views/s", note=notes.get(peer, ""),
            )
            for peer in bars if peer in ways
        ]  # fmt: skip
    return table
