"""`voc_semseg`: PASCAL VOC 2012 with SBD's masks, from archives or folders."""
