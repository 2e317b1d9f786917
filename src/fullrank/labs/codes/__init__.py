"""CPLearn with small and large dictionaries: the effect of one too small."""
