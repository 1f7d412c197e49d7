"""What a label map may hold beside the ids of classes, which are 0, 1, 2, ..."""

# Pixels that nobody annotated, and padding. It is never a class.
VOID = 255
