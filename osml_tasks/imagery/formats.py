"""Which of GDAL's formats strangers' files are read as."""

RASTERS = ("GTiff", "NITF", "JP2OpenJPEG", "PNG", "JPEG")
"""As GDAL calls them; a cloud-optimised GeoTIFF is a GTiff. VRTs have a way of their own."""
