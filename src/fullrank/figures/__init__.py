"""Figures, described once; `svg` draws them for pages, `matplotlib` for papers."""

from fullrank.figures.description import Dots, Figure, Heat, Image, Lines, Series, Table, curve, numbers_of

__all__ = ["Dots", "Figure", "Heat", "Image", "Lines", "Series", "Table", "curve", "numbers_of"]
