"""`camvid`: 480 x 360 road scenes, 11 classes, read from a folder."""
