"""Implicit variance regularisation: convergence of eigenmodes, toy and deep."""
