"""Which images there are, and which one comes when."""
