"""Many runs side by side: one job, one process pool, one way onto SLURM, one live table."""
