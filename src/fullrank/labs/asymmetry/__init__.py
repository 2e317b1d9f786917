"""What must differ between two branches for a network not to collapse."""
