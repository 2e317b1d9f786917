"""Encoders exported for timm, torchvision, plain PyTorch and ONNX."""
