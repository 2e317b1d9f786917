"""The page that sets runs, encoders and embeddings side by side, and its terminal view."""
