"""Edges of instances, from the file that lies beside a map of ids."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from dvsn.errors import DataError
from dvsn.portable.frame import Frame
from dvsn.portable.instances import edges_beside


@pytest.mark.parametrize("kind", ["labelIds", "partIds"])
def test_edges_are_read_beside_ids_of_labels_and_of_parts(kind: str, tmp_path: Path) -> None:
    instances = np.array([[26000, 26000, 26001], [26000, 26000, 26001]], np.uint16)
    ids = np.full((2, 3), 26, np.uint8)
    file = tmp_path / f"ulm_000000_000019_gtFine_{kind}.png"
    cv2.imwrite(str(file), ids)
    frame = Frame(path=file, name=file.name, picture=ids)
    with pytest.raises(DataError, match=r"no ulm_000000_000019_gtFine_instanceIds\.png beside"):
        edges_beside(frame, (2, 3))
    cv2.imwrite(str(tmp_path / "ulm_000000_000019_gtFine_instanceIds.png"), instances)
    assert edges_beside(frame, (2, 3)).tolist() == [[0, 1, 1], [0, 1, 1]]
