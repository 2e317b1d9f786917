"""Selection of encoders without labels: candidates, their measures, and the pick."""
