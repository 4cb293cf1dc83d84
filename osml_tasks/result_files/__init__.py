"""What becomes of a job's result: where it goes, in which format, as one file or as one of each image."""
