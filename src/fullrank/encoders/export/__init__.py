"""An encoder handed on to timm, torchvision, plain PyTorch and ONNX; features handed on as a map."""
