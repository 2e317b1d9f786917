"""Imports every method before pytest imports one of them by its path, which would register it twice."""

import fullrank.methods  # noqa: F401
