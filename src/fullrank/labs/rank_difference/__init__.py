"""RDM's rank difference: the target has the higher rank wherever a method works."""
