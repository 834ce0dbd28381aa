"""Run lengths against the COCO API's own code, and pictures as text."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as rle

from dvsn.errors import DataError
from dvsn.portable.runs import decode_mask, encode_mask, picture_text, text_picture


def masks() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    made = [
        random.random((int(h), int(w))) < share
        for h, w in random.integers(1, 70, (20, 2))
        for share in (0.02, 0.5)
    ]
    blocks = np.zeros((300, 500), bool)
    blocks[40:250, 100:400] = True
    return [*made, blocks, ~blocks, np.zeros((5, 7), bool), np.ones((5, 7), bool), np.ones((1, 1), bool)]


def test_runs_are_those_of_the_coco_api() -> None:
    for mask in masks():
        expected = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
        code = encode_mask(mask)
        assert code == {"size": list(expected["size"]), "counts": expected["counts"].decode()}
        np.testing.assert_array_equal(decode_mask(code), mask)
        np.testing.assert_array_equal(decode_mask(expected), mask)  # bytes, as the API has them


@pytest.mark.parametrize("counts", ["", "0", "5", "nonsense\x7f", "1" * 40])
def test_runs_that_do_not_fill_their_size_are_refused(counts: str) -> None:
    with pytest.raises(DataError, match="the run lengths cover"):
        decode_mask({"size": [3, 4], "counts": counts})


@pytest.mark.parametrize(("shape", "kind"), [((5, 7, 3), np.uint8), ((5, 7), np.uint8), ((5, 7), np.uint16)])
def test_pictures_as_text_are_lossless(shape: tuple[int, ...], kind: type) -> None:
    picture = np.random.default_rng(0).integers(0, np.iinfo(kind).max, shape).astype(kind)
    found = text_picture(picture_text(picture))
    assert found.dtype == kind
    np.testing.assert_array_equal(found, picture)


@pytest.mark.parametrize("text", ["", "not base64!", "aGVsbG8="])
def test_text_that_is_no_picture_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="expected a PNG in base64"):
        text_picture(text)
