"""Pictures too large to be read whole: GeoTIFF scenes and whole-slide images, by windows.

`open_raster` gives a `Raster` of whatever a file is; `geotiff`, `slides` and `scaled` are the kinds. `label_files`
writes label maps that lie where the scene lies.
"""

from psanet_tf.rasters.opening import RasterView, is_raster, open_raster
from psanet_tf.rasters.raster import Georeference, Raster

__all__ = ["Georeference", "Raster", "RasterView", "is_raster", "open_raster"]
