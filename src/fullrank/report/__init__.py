"""Pages, comparisons and terminal output of runs and audits."""
