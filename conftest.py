"""Imports every method and lab before pytest imports one by its path, which would register it twice."""

import fullrank.labs
import fullrank.methods  # noqa: F401
