"""A trained network on anybody's photos."""
