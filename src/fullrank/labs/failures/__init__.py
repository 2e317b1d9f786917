"""A gallery of induced collapses: the monitor's verdict, and when k-NN noticed."""
