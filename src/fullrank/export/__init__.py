"""An encoder handed on: to timm, torchvision, plain PyTorch and ONNX."""
