"""NME, failure rates, areas under curves: by hand, against the published sampling, and what cannot be measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import simpson

from dvsn.data.people import PeopleDataset, PersonRecord
from dvsn.errors import ConfigError, DataError
from dvsn.geometry.keypoints import KeypointSet
from dvsn.metrics.ced import area_under_curve, cumulative, failure_rate
from dvsn.metrics.keypoints import make_score
from dvsn.metrics.landmarks import NME

SET = KeypointSet(names=["left_out", "left_in", "right_in", "right_out"])
LENGTHS = {
    "inter_ocular": [["left_out"], ["right_out"]],
    "inter_pupil": [["left_out", "left_in"], ["right_in", "right_out"]],
    "box_diagonal": "diagonal",
    "box_area": "area",
    "face_box": "length",
}
FACE = np.array(
    [[0.0, 0.0], [20.0, 0.0], [60.0, 60.0], [80.0, 60.0]]
)  # ocular 100, pupils at (10, 0) and (70, 60)


class Faces(PeopleDataset):
    def __init__(self, records: list[PersonRecord], attribute_names: tuple[str, ...] = ()) -> None:
        super().__init__(keypoints=SET, transform=None, seed=0)
        self.records, self.attribute_names = records, attribute_names


def face(number: int, points: np.ndarray = FACE, labelled: Any = (1, 1, 1, 1), **rest: Any) -> PersonRecord:
    known = np.array(labelled, np.uint8)
    return PersonRecord(
        Path(f"{number}.png"), (0, 0, 9, 9), points.astype(np.float32), known, number, length=50.0
    )._replace(**rest)


def measured(
    records: list[PersonRecord], moves: list[Any], names: tuple[str, ...] = (), **options: Any
) -> NME:
    """Each face predicted where it is, plus a move that is a number, (2,) or (4, 2)."""
    score = NME(keypoints=SET, **({"normalise": LENGTHS} | options))
    score.attach(Faces(records, names))
    points = np.stack(
        [each.keypoints + np.zeros((4, 2)) + move for each, move in zip(records, moves, strict=True)]
    )
    count = len(records)
    score.update(torch.arange(count), torch.tensor(points), torch.ones(count, 4), torch.ones(count, 2))
    return score


def test_every_normalisation_by_hand() -> None:
    """All points 5 pixels off: 5 over 100; 60 sqrt 2 of the pupils; 100 diagonal; sqrt(80 x 60); 50 of the file."""
    values = {name: value.item() for name, value in measured([face(0)], [(3, 4)]).compute().items()}
    assert values["nme"] == pytest.approx(0.05)
    assert values["nme_inter_pupil"] == pytest.approx(5 / (60 * 2**0.5))
    assert values["nme_box_diagonal"] == pytest.approx(0.05)
    assert values["nme_box_area"] == pytest.approx(5 / 4800**0.5)
    assert values["nme_face_box"] == pytest.approx(0.1)
    assert "nme_inter_ocular" not in values


def test_the_first_length_decides() -> None:
    score = measured(
        [face(0)], [(3, 4)], normalise={"face_box": "length", "inter_ocular": LENGTHS["inter_ocular"]}
    )
    values = score.compute()
    assert values["nme"].item() == pytest.approx(0.1) and values["nme_inter_ocular"].item() == pytest.approx(
        0.05
    )
    assert values["auc_10"].item() == pytest.approx(0, abs=1e-6)


def test_failures_and_areas_by_hand() -> None:
    """Errors 0.02, 0.06, 0.09, 0.20."""
    values = measured([face(n) for n in range(4)], [(2, 0), (0, 6), (9, 0), (0, 20)]).compute()
    assert values["nme"].item() == pytest.approx(0.0925)
    assert values["fr_08"].item() == 0.5 and values["fr_10"].item() == 0.25
    assert values["auc_08"].item() == pytest.approx((0.06 + 0.02) / 4 / 0.08)
    assert values["auc_10"].item() == pytest.approx((0.08 + 0.04 + 0.01) / 4 / 0.10)


def test_the_mean_is_over_faces_and_labelled_points() -> None:
    """A face with one labelled point counts as much as one with four; where nothing is labelled nothing counts."""
    far = np.array([[4, 0], [900, 900], [0, 0], [8, 0]])
    score = measured(
        [face(0), face(1, labelled=(1, 0, 0, 1))],
        [(2, 0), far],
        normalise={"inter_ocular": LENGTHS["inter_ocular"]},
    )
    assert score.errors()[1].tolist() == pytest.approx([0.02, 0.06])
    assert score.compute()["nme"].item() == pytest.approx(0.04)


def test_area_equals_the_published_sampling() -> None:
    errors = np.random.default_rng(0).gamma(3, 0.02, 500)
    at = np.arange(1001) * 1e-4
    for threshold, last in ((0.08, 801), (0.10, 1001)):
        shares = np.array([(errors <= each).mean() for each in at[:last]])
        sampled = simpson(shares, x=at[:last]) / threshold
        assert area_under_curve(errors, threshold) == pytest.approx(sampled, abs=1e-4)
        assert failure_rate(errors, threshold) == pytest.approx(1 - shares[-1])


def test_cumulative_by_hand() -> None:
    errors = np.array([0.1, 0.3, 0.2, np.inf])
    assert cumulative(errors, np.array([0.0, 0.1, 0.25, 9.0])).tolist() == [0, 0.25, 0.5, 0.75]
    assert np.isnan(cumulative(errors[:0], np.array([0.1]))).all() and np.isnan(failure_rate(errors[:0], 0.1))


def test_coinciding_eye_corners_are_left_out_and_named() -> None:
    flat = FACE.copy()
    flat[3] = flat[0]
    score = measured(
        [face(0), face(1, flat), face(2, labelled=(1, 1, 1, 0)), face(3, labelled=(0, 0, 0, 0))], [(3, 4)] * 4
    )
    values = score.compute()
    assert all(bool(torch.isfinite(value)) for value in values.values())
    assert values["nme"].item() == pytest.approx(0.05) and score.table()[0]["count"] == 1
    rows = [(row["face"], row["length"], row["reason"]) for row in score.left_out()]
    text = "left_out and right_out are one point, or not labelled"
    assert rows[0] == ("1.png, annotation 1", "inter_ocular", text)
    assert rows[1] == ("2.png, annotation 2", "inter_ocular", text)
    assert rows[-1] == ("3.png, annotation 3", "any", "no point is labelled")
    assert {length for name, length, _ in rows if name.startswith("1.")} == {"inter_ocular"}
    assert score.errors("box_diagonal")[0].tolist() == [0, 1, 2]


def test_where_nothing_can_be_measured() -> None:
    flat = np.zeros((4, 2))
    with pytest.raises(DataError, match=r"0.png, annotation 0: left_out and right_out.*all 2 faces"):
        measured([face(0, flat), face(1, flat)], [0, 0])


def test_subsets() -> None:
    """Attributes overlap; groups do not, and are listed only where there are several."""
    records = [
        face(0, attributes=np.array([1, 1], np.uint8), group="common"),
        face(1, attributes=np.array([0, 1], np.uint8), group="common"),
        face(2, attributes=np.array([0, 0], np.uint8), group="challenge"),
    ]
    names = ("pose", "blur")
    rows = measured(records, [(1, 0), (3, 0), (20, 0)], names).table()
    assert [(row["faces"], row["count"]) for row in rows] == [
        ("all", 3), ("common", 2), ("challenge", 1), ("pose", 1), ("blur", 2),
    ]  # fmt: skip
    assert [row["nme"] for row in rows] == pytest.approx([0.08, 0.02, 0.2, 0.01, 0.02])
    assert [row["fr_10"] for row in rows] == pytest.approx([1 / 3, 0, 1, 0, 0])
    bare = [each._replace(attributes=np.zeros(2, np.uint8), group="common") for each in records]
    rows = measured(bare, [(1, 0)] * 3, names).table()
    assert [row["faces"] for row in rows] == ["all", "pose", "blur"]
    assert rows[1]["count"] == 0 and rows[1]["nme"] is None and rows[1]["fr_10"] is None


def test_a_face_predicted_twice_counts_once_and_others_not_at_all() -> None:
    score = NME(keypoints=SET, normalise=LENGTHS)
    score.attach(Faces([face(n) for n in range(3)]))
    for number, move in ((2, 8.0), (0, 2.0), (2, 8.0)):
        points = torch.tensor(FACE + np.array([move, 0])).unsqueeze(0)
        score.update(torch.tensor([number]), points, torch.ones(1, 4), torch.ones(1, 2))
    assert score.compute()["nme"].item() == pytest.approx(0.05)
    assert [(row["index"], row["face"]) for row in score.per_face()] == [
        (2, "2.png, annotation 2"), (0, "0.png, annotation 0"),
    ]  # fmt: skip


def test_a_prediction_that_is_no_number_is_a_failure() -> None:
    values = measured([face(0), face(1)], [(2, 0), np.nan]).compute()
    assert values["nme"].item() == np.inf and values["fr_10"].item() == 0.5
    assert values["auc_10"].item() == pytest.approx(0.4)


def test_nothing_predicted_yet() -> None:
    score = NME(keypoints=SET, normalise=LENGTHS)
    score.attach(Faces([face(0)]))
    assert bool(torch.isnan(score.compute()["nme"])) and score.table()[0]["count"] == 0
    assert score.curve()[0]["all"] is None and list(score.by_subset()) == ["all"]


def test_the_curve_as_rows() -> None:
    rows = measured([face(n) for n in range(4)], [(2, 0), (0, 6), (9, 0), (0, 30)]).curve(
        limit=0.1, step=0.01
    )
    assert [row["nme"] for row in rows] == pytest.approx(np.arange(11) / 100)
    assert [row["all"] for row in rows] == [0, 0, 0.25, 0.25, 0.25, 0.25, 0.5, 0.5, 0.5, 0.75, 0.75]


def test_the_score_by_name() -> None:
    score = make_score("nme", keypoints=SET, normalise=LENGTHS)
    assert isinstance(score, NME) and score.higher_is_better is False


@pytest.mark.parametrize(
    ("normalise", "message"),
    [
        ({}, r"data.facts.normalise: not given.*data.facts.score=nme"),
        ({"eyes": "width"}, r"data.facts.normalise.eyes: found 'width', expected diagonal, area, length"),
        ({"eyes": [["left_out"]]}, r"data.facts.normalise.eyes"),
        ({"eyes": ["left_out", "right_out"]}, r"two lists of keypoints"),
        ({"eyes": [["left_out"], []]}, r"two lists of keypoints"),
        ({"eyes": None}, r"data.facts.normalise.eyes: found None, .*two lists of keypoints"),
        ({"eyes": 3}, r"data.facts.normalise.eyes: found 3"),
        ({"eyes": [None, 3]}, r"two lists of keypoints"),
        ({"eyes": [["left_out"], ["rigth_out"]]}, r"rigth_out.*right_out"),
    ],
)
def test_wrong_lengths(normalise: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_score("nme", keypoints=SET, normalise=normalise)


def test_wrong_thresholds() -> None:
    with pytest.raises(ConfigError, match="thresholds"):
        NME(keypoints=SET, normalise=LENGTHS, thresholds=[0.0])
