"""The collapse monitor inside other libraries' training loops."""
