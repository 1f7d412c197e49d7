"""`cityscapes_semseg`: 2048 x 1024 street scenes, 19 classes, from the official files."""
