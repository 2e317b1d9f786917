"""The page and figures of an audit, and its terminal view."""
