"""Pages of the site that follow from the code: methods, metrics, labs and the reference."""
