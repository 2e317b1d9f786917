"""Write further recordings of the format, computed by ours: other sizes, seeds, names and settings.

What a comparer obtains from the inputs becomes the output, so that such a directory says nothing about the
references. It says that no size, key, seed or option of the first set is taken for granted.

    python tests/golden/written.py DIR
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
RECIPES: dict[str, Callable[[np.random.Generator], Recipe]] = {}


class Recipe:
    """Inputs, settings and names of outputs of one recording.

    Args:
        settings: as in the description.
        inputs: by name, without `in.`.
        outputs: by name, with role; a shape where the comparer asks the recording for it.
        about: further entries of the description.
        dtype: that inputs and outputs are stored in.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        inputs: Mapping[str, Array],
        outputs: Mapping[str, tuple[int, ...]],
        about: Mapping[str, Any] | None = None,
        dtype: str = "float64",
    ) -> None:
        self.settings, self.inputs, self.outputs = dict(settings), dict(inputs), dict(outputs)
        self.about, self.dtype = dict(about or {}), dtype


def recipe(name: str) -> Callable[[Callable[[np.random.Generator], Recipe]], Callable[..., Recipe]]:
    """File what makes a recording ITEM__CASE."""

    def file(function: Callable[[np.random.Generator], Recipe]) -> Callable[[np.random.Generator], Recipe]:
        RECIPES[name] = function
        return function

    return file


def named(*names: str) -> dict[str, tuple[int, ...]]:
    """Outputs whose shape no comparer asks for."""
    return dict.fromkeys(names, ())


def write(name: str, directory: Path, seed: int = 5) -> Path:
    """Write one recording, with the outputs that ours obtains."""
    from golden.case import COMPARERS, Case
    from golden.harness import file_comparers

    file_comparers()
    made = RECIPES[name](np.random.default_rng(seed))
    item, _, case = name.partition("__")
    kept = {
        f"in.{key}": value.astype(made.dtype) if value.dtype == np.float64 else value
        for key, value in made.inputs.items()
    }
    tolerance = {"rtol": 1e-8, "atol": 1e-12} if made.dtype == "float64" else {"rtol": 5e-4, "atol": 1e-5}
    about = {
        "item": item,
        "case": case,
        "settings": made.settings,
        "tolerance": {"default": tolerance, "per_array": {}},
        **made.about,
    }
    probe = Case(
        directory / f"{name}.npz",
        kept | {n: np.zeros(s) for n, s in made.outputs.items()},
        about,
        probing=True,
    )
    COMPARERS[item](probe)
    missing = [output for output in made.outputs if output not in probe.obtained]
    if missing:
        raise ValueError(f"{name}: ours does not obtain {', '.join(missing)}")
    floats = {n: v.astype(made.dtype) if v.dtype.kind == "f" else v for n, v in probe.obtained.items()}
    np.savez(probe.path, **kept, **floats)  # type: ignore[arg-type]
    probe.path.with_suffix(".json").write_text(json.dumps(about))
    return probe.path


def main() -> None:
    """Write all of them into the directory that is named."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from golden import written  # this file under its own name

    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    from golden.harness import file_comparers

    file_comparers()
    for name in written.RECIPES:
        print(written.write(name, directory))


if __name__ == "__main__":
    main()
