"""Probes: what a representation is worth. They take tensors, never a method or a config."""

from fullrank.probes.knn import knn_predict, nearest

__all__ = ["knn_predict", "nearest"]
