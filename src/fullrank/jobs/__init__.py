"""Many runs side by side: jobs, a process pool, SLURM and a live table."""
