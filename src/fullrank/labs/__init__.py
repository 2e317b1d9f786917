"""The papers' experiments: each a short script over the storeys below, run by one command."""
