"""Networks: backbones, heads, momentum copies, dictionaries, filters."""
