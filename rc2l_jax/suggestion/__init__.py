"""Says which photos to label next."""
