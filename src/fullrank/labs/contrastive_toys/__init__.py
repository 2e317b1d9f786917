"""Dimensional collapse of contrastive learning: its two causes on linear toys, and DirectCLR's remedy."""
