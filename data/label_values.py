"""What a label map may hold beside the ids of classes, which are 0, 1, 2, ..."""

# Pixels that nobody annotated, and padding. It is never a class.
VOID = 255

# Names under which tools and data sets list what surrounds the objects.
BACKGROUND_NAMES = ("background", "_background_", "__background__")
