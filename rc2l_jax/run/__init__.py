"""A run's config, directory, checkpoints and processes, and how it survives being stopped."""
