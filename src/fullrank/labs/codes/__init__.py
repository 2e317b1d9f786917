"""CPLearn with small and large dictionaries: what a dictionary that is too small does to the embedding."""
