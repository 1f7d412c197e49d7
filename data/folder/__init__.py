"""`folder`: your own images, masks and list of classes."""
