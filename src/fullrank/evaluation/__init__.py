"""Linear probes, k-NN, clusters and fine-tuning of an encoder or features."""
