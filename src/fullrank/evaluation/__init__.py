"""What a representation is worth: the probes on a run's, a model's or a file's features."""
