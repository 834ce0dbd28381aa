"""What was found in one picture, for every task: a record that tools take and give."""

from __future__ import annotations

import inspect
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from dvsn.errors import ConfigError, nearest
from dvsn.portable import coco, overlay, plain, supervise
from dvsn.portable.record import RankedClass, Record

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["RankedClass", "Result"]

Array = np.ndarray[Any, Any]


class Result(Record):
    """The answer of a task to one picture, in numpy: the fields of `dvsn.portable.record.Record`, and their other forms."""

    def plot(self, **options: Any) -> Image:
        """The picture with the answer drawn on it, as a PIL picture: see `dvsn.portable.overlay.draw` for the options.

        Raises `ConfigError` for an option that it has not.
        """
        from PIL import Image

        known = list(inspect.signature(overlay.draw).parameters)[1:]
        for name in options:
            if name not in known:
                raise ConfigError(f"{name}: plot has no such option. {nearest(name, known)}")
        return Image.fromarray(overlay.draw(self, **options))

    def _repr_png_(self) -> bytes:
        """What a notebook shows."""
        buffer = io.BytesIO()
        self.plot().save(buffer, format="PNG")
        return buffer.getvalue()

    def to_json(self) -> dict[str, Any]:
        """All of it but the frame's picture in plain types, for `json.dumps`; `from_json` reads it.

        Maps of ids and pictures are PNG files in base64, masks COCO's run lengths. A number that is not one is null.
        """
        return plain.to_json(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any] | str, picture: Array | None = None) -> Result:
        """The result of `to_json`, or of its text. The frame's `picture` is black where none is given.

        Raises `DataError` with the key for content of another form.
        """
        return cls(**plain.read_fields(content, picture))

    def to_coco(self, image_id: int | None = None) -> list[dict[str, Any]]:
        """Entries of COCO's results format, the best first: boxes (`bbox` is x, y, width, height) with masks, keypoints, or
        the pixels of each class; of faces also their angles. `image_id`: the picture's number, where it is another one than
        `self.image_id`, which is the frame's place from 1 where nobody knows it.

        Raises `ConfigError` for classification and pix2pix, of which COCO has no form.
        """
        return coco.to_coco(self, image_id)

    def to_supervision(self) -> Any:
        """The record of the library supervision (MIT): `Detections` of detection and, one a class, of segmentation;
        `KeyPoints` of pose and landmarks; `Classifications` of classification.

        Raises `ConfigError` where the library is missing, and for pix2pix.
        """
        return supervise.to_supervision(self)
