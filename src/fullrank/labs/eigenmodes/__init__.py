"""Implicit variance regularisation: how fast eigenmodes converge, in toy networks and in deep ones."""
