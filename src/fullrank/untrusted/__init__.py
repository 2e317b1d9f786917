"""Guards for files from strangers: paths, parsers, headers."""
