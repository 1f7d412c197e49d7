"""What a run keeps in its directory, and how it survives being stopped."""
