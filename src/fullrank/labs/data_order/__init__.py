"""Which image when: chunk after chunk, all at once, or the one before the other (Li et al.'s experiment)."""
