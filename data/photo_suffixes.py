"""The suffixes of photos that a data set may hold, in lower case."""

HEIC_SUFFIXES = (".heic", ".heif")  # need a package of their own
PHOTO_SUFFIXES = (
    ".jpg", ".jpeg", ".jfif", ".png", ".avif", ".bmp", ".gif", ".tif", ".tiff", ".webp",
    *HEIC_SUFFIXES,
)  # fmt: skip
