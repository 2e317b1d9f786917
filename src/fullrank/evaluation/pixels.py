"""k-NN on raw pixels: the accuracy to beat, which takes no network at all."""

from __future__ import annotations


def raw_pixel_knn(data: str = "shapes") -> float:
    """k-NN accuracy on raw held-out pixels; the labelled data must fit into memory."""
    import torch

    from fullrank.images.opening import open_data
    from fullrank.images.sources import MemorySource
    from fullrank.probes import knn_predict

    opened = open_data(data)
    assert isinstance(opened.train, MemorySource) and isinstance(opened.held_out, MemorySource)
    assert opened.train.labels is not None and opened.held_out.labels is not None
    queries, bank = (source.images.flatten(1).float() for source in (opened.held_out, opened.train))
    predicted = knn_predict(queries, bank, torch.from_numpy(opened.train.labels))
    right: float = (predicted == torch.from_numpy(opened.held_out.labels)).double().mean().item()
    return right
