"""Probes on the features of a run, a model or a file: linear, k-NN, clusters, fine-tuning."""
