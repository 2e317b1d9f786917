"""Our numbers are the reference implementations' numbers."""

import importlib.util
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.golden
def test_spectrum_metrics_match_the_reference() -> None:
    spec = importlib.util.spec_from_file_location("golden_spectra", HERE / "golden_spectra.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    compared = module.compare_spectra(HERE.parent / "golden")
    assert compared == {"07a_spectrum_metrics__base": 14, "07a_spectrum_metrics__wide": 14}
