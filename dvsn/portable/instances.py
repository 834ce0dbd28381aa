"""Edges of instances, a further plane of the input of networks that paint from Cityscapes' ids."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np

from dvsn.errors import DataError
from dvsn.portable.decode import read_by, read_labels
from dvsn.portable.frame import Frame
from dvsn.portable.memory import instance_edges

Array = np.ndarray[Any, Any]


def edges_beside(frame: Frame, size: Sequence[int]) -> Array:
    """(H, W) uint8 of 0 and 1: edges of the instance file beside a Cityscapes label file, at `size` (H, W). It is read by
    the frame's rule, upright where that one was. Raises `DataError` where there is none."""
    path = frame.path
    if path is None:
        raise DataError(
            f"{frame.name}: this network also needs instance edges, which are read from a file beside the label file. "
            "Give the path of NAME_labelIds.png with NAME_instanceIds.png beside it."
        )
    instances = path.with_name(re.sub("_(label|part)Ids", "_instanceIds", path.name))
    if instances == path or not instances.is_file():
        raise DataError(
            f"{path}: this network also needs instance edges, and there is no {instances.name} beside the file. "
            "Expected NAME_labelIds.png with NAME_instanceIds.png."
        )
    with read_by(replace(frame.rule, turned=[])):  # told of the label file already
        stored = read_labels(instances)
    ids = cv2.resize(stored, (size[1], size[0]), interpolation=cv2.INTER_NEAREST)
    return instance_edges(ids)
