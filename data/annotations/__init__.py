"""What labelling tools save: one module for each format, one structure for all of them.

`recognition.read` says by a file's content what it is and reads it into `regions.Annotations`;
`drawing.draw` makes a mask of class ids of that. Nothing here knows folders, splits or records.
"""
