"""The labels of scenes, by windows: rasters of values or colours, or polygons with a property that names the class."""

import abc
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from psanet_tf.data.findings import counted
from psanet_tf.data.importing.source import UNLABELLED, Keys
from psanet_tf.rasters.geotiff import georeference_of, opened, rasterio_for
from psanet_tf.rasters.raster import Georeference, Raster

_LARGEST_VALUE = (1 << 16) - 1
_POLYGON_SUFFIXES = (".geojson", ".json")
_POLYGONS = ("Polygon", "MultiPolygon")
_OWN_CRS = "OGC:CRS84"  # of GeoJSON that names none (RFC 7946, section 4)


class SceneLabels(abc.ABC):
    """The labels of one scene; closed at the end of a ``with`` block.

    Attributes:
        keys: `Keys` that they are told by.
        names: {key: class}, as far as the file says.
    """

    keys: Keys
    names: dict[str, str]

    @abc.abstractmethod
    def read(self, top: int, left: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """(codes of `keys`, int32 [height, width]; bool: which of them are labels) of a window of the scene.

        Raises:
            ValueError: the file is damaged there, or holds what is no label.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Gives the file back."""

    def __enter__(self) -> "SceneLabels":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def is_polygons(path: str | os.PathLike) -> bool:
    """Whether a file of labels is GeoJSON."""
    return Path(path).suffix.lower() in _POLYGON_SUFFIXES


class LabelRaster(SceneLabels):
    """A raster of the scene's size: whole numbers in one band, or colours in three.

    Args:
        path: of the file.
        scene: whose labels they are.

    Raises:
        ValueError: no raster, one of another size or place than the scene, or of other bands.
    """

    def __init__(self, path: str | os.PathLike, scene: Raster) -> None:
        self._path, self._file = path, opened(path)
        try:
            self._check(scene)
        except ValueError:
            self._file.close()
            raise
        self._rasterio = rasterio_for(f"reading {path}")
        self.keys = Keys("value" if self._file.count == 1 else "colour")
        tags = self._file.tags()
        self.names = {key[6:]: tags[key] for key in tags if key.startswith("CLASS_") and key[6:].isdecimal()}

    def read(self, top: int, left: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        window = self._rasterio.windows.Window(left, top, width, height)
        try:
            bands = self._file.read(window=window)
            valid = self._file.dataset_mask(window=window) > 0
        except self._rasterio.errors.RasterioError as error:
            raise ValueError(f"{self._path}: cannot be read: {error}") from None
        if self.keys.kind == "colour":
            red, green, blue = bands[:3].astype(np.int32)
            return red << 16 | green << 8 | blue, valid
        codes = np.where(valid, bands[0], 0).astype(np.int64)
        if codes.min() < 0 or codes.max() > _LARGEST_VALUE:
            raise ValueError(
                f"{self._path}: values from {codes.min()} to {codes.max()}, labels must be 0..{_LARGEST_VALUE}; of a "
                "value that is none make the file's nodata value (gdal_edit.py -a_nodata)"
            )
        return codes.astype(np.int32), valid

    def close(self) -> None:
        self._file.close()

    def _check(self, scene):
        size, dtypes = self._file.shape, set(self._file.dtypes)
        if size != tuple(scene.size):
            raise ValueError(
                f"{self._path} is of {size[0]} x {size[1]} pixels, {scene.path} of {scene.size[0]} x {scene.size[1]}: "
                "resample the labels by nearest neighbour onto the scene's grid (gdalwarp -r near -te ... -ts ...)"
            )
        own, other = georeference_of(self._file).transform, scene.georeference.transform
        if own and other and not np.allclose(own, other, rtol=0, atol=abs(other[0]) / 2):
            raise ValueError(f"{self._path} lies elsewhere than {scene.path}: transform {own}, not {other}")
        if self._file.count == 1 and all(np.dtype(dtype).kind in "iu" for dtype in dtypes):
            return
        if self._file.count in (3, 4) and dtypes == {"uint8"}:
            return
        raise ValueError(
            f"{self._path}: labels must be whole numbers in one band or colours in three of uint8, this has "
            f"{self._file.count} of {' and '.join(sorted(dtypes))}"
        )


class LabelPolygons(SceneLabels):
    """Polygons of a GeoJSON file, later ones on earlier ones; a pixel is inside if its middle is.

    Args:
        path: of the file, in the coordinates that it names, else longitude and latitude (RFC 7946).
        scene: whose labels they are; it must say where it lies.
        class_property: of each feature, that names its class.
        names: of all classes, also of other files.

    Raises:
        ValueError: no GeoJSON, a scene without a place, or features without the property.
    """

    def __init__(self, path: str | os.PathLike, scene: Raster, class_property: str, names: Sequence[str]) -> None:
        place = scene.georeference
        if place.crs is None or place.transform is None:
            raise ValueError(f"{scene.path} does not say where it lies, so polygons cannot be laid on it")
        self._rasterio = rasterio_for(f"laying {path} on a scene")
        self._place: Georeference = place
        self.keys, self.names = Keys("label", tuple(names)), {}
        collection = _read_geojson(path)
        crs = ((collection.get("crs") or {}).get("properties") or {}).get("name", _OWN_CRS)
        self._shapes = []
        for feature in _polygons(collection):
            geometry = self._rasterio.warp.transform_geom(crs, place.crs, feature["geometry"])
            code = names.index(_class_of(feature, class_property, path))
            self._shapes.append((geometry, code, self._rasterio.features.bounds(geometry)))

    def read(self, top: int, left: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        transform = self._rasterio.Affine(*self._place.transform) @ self._rasterio.Affine.translation(left, top)
        corners = [transform @ (x, y) for x in (0, width) for y in (0, height)]
        low, high = np.min(corners, axis=0), np.max(corners, axis=0)
        near = [
            (geometry, code)
            for geometry, code, (x0, y0, x1, y1) in self._shapes
            if x0 <= high[0] and x1 >= low[0] and y0 <= high[1] and y1 >= low[1]
        ]
        codes = np.full((height, width), len(self.keys.names), np.int32)
        if near:
            self._rasterio.features.rasterize(near, out=codes, transform=transform)
        return codes, np.ones((height, width), bool)

    def close(self) -> None:
        self._shapes = []


def polygon_names(paths: Sequence[str | os.PathLike], class_property: str | None) -> tuple[tuple[str, ...], list[str]]:
    """The names of the classes in GeoJSON files, in the order in which they come, and lines on what is no polygon.

    Raises:
        ValueError: no such files, or a feature without the property; the message says which properties there are.
    """
    found, lines = {}, []
    for path in dict.fromkeys(paths):
        collection = _read_geojson(path)
        polygons = _polygons(collection)
        for feature in polygons:
            found.setdefault(_class_of(feature, class_property, path))
        if others := {_kind_of(feature) for feature in collection["features"]} - set(_POLYGONS):
            count = counted(len(collection["features"]) - len(polygons), "feature")
            lines.append(f"left out: {count} of {path} that cover nothing ({', '.join(sorted(others))})")
    if not found:
        raise ValueError(f"{paths[0]} holds no polygons")
    if UNLABELLED in found:
        raise ValueError(f"{paths[0]}: {UNLABELLED!r} stands for what lies in no polygon, no class can be called so")
    return tuple(found), lines


def _read_geojson(path) -> dict[str, Any]:
    try:
        tree = json.loads(Path(path).read_text(encoding="utf-8"))
        return tree if isinstance(tree.get("features"), list) else _refuse(path)
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError):
        return _refuse(path)


def _refuse(path):
    raise ValueError(f"{path} is no GeoJSON file with features: export it as GeoJSON (a FeatureCollection)")


def _polygons(collection):
    return [feature for feature in collection["features"] if _kind_of(feature) in _POLYGONS]


def _kind_of(feature):
    return (feature.get("geometry") or {}).get("type") or "no geometry"


def _class_of(feature, class_property, path):
    properties = feature.get("properties") or {}
    value = properties.get(class_property)
    if value is None:
        there = ", ".join(sorted(properties)) or "none"
        what = "--class-property: say which property names the class" if class_property is None else (
            f"--class-property {class_property}: a feature has no such property"
        )  # fmt: skip
        raise ValueError(f"{what}; {path} has {there}")
    return str(value)
