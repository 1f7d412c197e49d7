"""`shapes`: images drawn on the fly, 6 shapes and background; needs no files."""
