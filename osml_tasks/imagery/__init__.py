"""Whole images: cut into tiles by workers, detections put on the image and on the globe, seen-twice ones merged."""
