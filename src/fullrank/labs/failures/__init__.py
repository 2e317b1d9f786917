"""A gallery of collapses: each way to collapse induced, what the monitor called it, and when k-NN noticed."""
