"""Images to train on and held out: sources, their order, and loading."""
