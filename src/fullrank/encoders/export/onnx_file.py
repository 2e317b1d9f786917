"""An encoder as an ONNX file, checked against onnxruntime."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fullrank.encoders.encoder import Encoder
from fullrank.encoders.export.rebuilt import probe_images
from fullrank.errors import FullrankError, UsageError, first_line

OLDEST = "2.7"  # PyTorch whose exporter understands today's onnxscript
LARGEST_DIFFERENCE = 1e-4  # of the features' size, between onnxruntime and PyTorch
ONE_FILE = 1_900_000_000  # bytes: protobuf ends at 2 GB, beyond it weights lie beside the file


def write_onnx(model: Encoder, path: Path, said: Mapping[str, Any]) -> float:
    """Write images [n, 3, S, S], normalised, to features [n, d]; n is free.

    Returns:
        The largest difference between onnxruntime's features and PyTorch's, as a share of the largest
        feature, over batches of 1 and 3 images.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401 (torch's exporter needs it)
    except ImportError as error:
        raise UsageError(f"--to onnx needs {error.name}; pip install 'fullrank[onnx]'") from error
    if torch.__version__ < OLDEST:
        raise UsageError(
            f"--to onnx needs PyTorch {OLDEST} or newer, not {torch.__version__}; "
            "pip install 'fullrank[onnx]'"
        )
    size = sum(value.nbytes for value in model.network.state_dict().values())
    network = model.network.cpu().eval()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's own deprecations
            torch.onnx.export(
                network,
                (probe_images(model, 2),),
                path,
                input_names=["images"],
                output_names=["features"],
                dynamic_shapes=({0: torch.export.Dim("n", min=1)},),
                dynamo=True,
                external_data=size > ONE_FILE,
                verbose=False,
            )
    except Exception as error:  # whatever a network of another library trips over on its way through
        raise FullrankError(f"{model.name} cannot be exported to ONNX: {first_line(error)}") from error
    proto = onnx.load(str(path), load_external_data=False)
    onnx.helper.set_model_props(proto, {key: json.dumps(value) for key, value in said.items()})
    onnx.save(proto, str(path))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    worst = 0.0
    for n in (1, 3):
        images = probe_images(model, n)
        (features,) = session.run(["features"], {"images": images.numpy()})
        with torch.no_grad():
            expected = network(images)
        worst = max(worst, float((torch.from_numpy(features) - expected).abs().max() / expected.abs().max()))
    if not worst <= LARGEST_DIFFERENCE:
        raise FullrankError(
            f"{model.name} gives other features under onnxruntime: they differ by {worst:.1e} of their size"
        )
    return worst
