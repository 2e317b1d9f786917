"""Cures of a collapsed run: onset, branches before it, treatments' worth."""
