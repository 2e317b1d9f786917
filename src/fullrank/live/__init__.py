"""Pages of runs that grow, on this machine alone: what `fullrank watch` serves."""
