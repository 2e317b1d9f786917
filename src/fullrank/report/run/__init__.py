"""The page of one run, and its terminal view."""
