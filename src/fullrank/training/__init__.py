"""Training: configuration, loop, optimisers, schedules, run directory."""
