"""Data order: chunk after chunk, all at once, or one then the other (Li et al.)."""
