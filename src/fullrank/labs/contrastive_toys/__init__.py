"""Dimensional collapse of contrastive learning: causes on toys, and DirectCLR."""
