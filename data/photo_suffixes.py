"""The suffixes of photos that a data set may hold, in lower case."""

AVIF_SUFFIXES = (".avif",)  # need a later Pillow than the rest
HEIC_SUFFIXES = (".heic", ".heif")  # need a package of their own
PHOTO_SUFFIXES = (
    ".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp",
    *AVIF_SUFFIXES, *HEIC_SUFFIXES,
)  # fmt: skip
