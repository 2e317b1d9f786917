"""Networks: backbones (any timm name, the CIFAR variants of the literature), heads, momentum copies."""
