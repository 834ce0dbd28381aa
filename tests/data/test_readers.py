"""Every reader on small trees in the published layouts, and on files that are broken in every way."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from dvsn.data.aligned import Aligned
from dvsn.data.camvid import COLORS, PALETTE, VOID, CamVid, ids_of_colors, split_of
from dvsn.data.cityscapes import Cityscapes
from dvsn.data.cityscapes_labels import PALETTE as CITY_PALETTE
from dvsn.data.cityscapes_labels import TRAIN_ID_OF
from dvsn.data.dataset import ImageDataset, item_seed
from dvsn.data.files import list_pictures, read_colors, read_labels, read_rgb, unique_names
from dvsn.data.folders import Folders
from dvsn.errors import ConfigError, DataError
from dvsn.reading import read_rows

RNG = np.random.default_rng(0)


def noise(height: int = 12, width: int = 16, channels: int = 3) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, channels), np.uint8)


def save(path: Path, array: np.ndarray, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def encoded(array: np.ndarray, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


def cityscapes(
    root: Path, *, split: str = "train", cities: tuple[str, ...] = ("ulm", "bonn"), n: int = 2
) -> None:
    for city in cities:
        for number in range(n):
            stem = f"{city}_{number:06d}_000019"
            ids = RNG.integers(0, 34, (12, 16), np.uint8)
            rgba = np.dstack([CITY_PALETTE[ids], np.full((12, 16), 255, np.uint8)])
            save(root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png", noise())
            for kind, array in {
                "labelIds": ids,
                "labelTrainIds": TRAIN_ID_OF[ids],
                "color": rgba,
                "instanceIds": (ids.astype(np.uint16) * 1000 + 7),
            }.items():
                save(root / "gtFine" / split / city / f"{stem}_gtFine_{kind}.png", array)


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF", "WEBP"])
def test_read_rgb_equals_pillow(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"x.{kind.lower()}"
    path.write_bytes(encoded(cv2.resize(noise(), (64, 48)), kind))
    expected = np.asarray(Image.open(path).convert("RGB"))
    assert np.abs(read_rgb(path).astype(int) - expected).max() <= (3 if kind == "JPEG" else 0)


def test_read_rgb_drops_alpha_spreads_grey_and_expands_palettes(tmp_path: Path) -> None:
    rgba = noise(channels=4)
    np.testing.assert_array_equal(read_rgb(save(tmp_path / "a.png", rgba)), rgba[..., :3])
    grey = noise()[..., 0]
    np.testing.assert_array_equal(read_rgb(save(tmp_path / "g.png", grey)), np.stack([grey] * 3, -1))
    indexed = Image.fromarray(np.array([[0, 1], [1, 2]], np.uint8), "P")
    indexed.putpalette([1, 2, 3, 40, 50, 60, 255, 0, 9])
    indexed.save(tmp_path / "p.png")
    np.testing.assert_array_equal(read_rgb(tmp_path / "p.png")[:, 1], [[40, 50, 60], [255, 0, 9]])


def test_sixteen_bits_keep_the_upper_eight(tmp_path: Path) -> None:
    deep = RNG.integers(0, 65536, (5, 7), np.uint16)
    assert cv2.imwrite(str(tmp_path / "g.png"), deep)
    np.testing.assert_array_equal(read_rgb(tmp_path / "g.png")[..., 1], deep >> 8)
    rgb = RNG.integers(0, 65536, (5, 7, 3), np.uint16)
    assert cv2.imwrite(str(tmp_path / "c.png"), rgb[..., ::-1])
    np.testing.assert_array_equal(read_rgb(tmp_path / "c.png"), rgb >> 8)


def test_photos_are_read_as_stored_whatever_exif_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by 90 degrees"
    for kind in ("JPEG", "PNG"):
        path = tmp_path / f"x.{kind.lower()}"
        path.write_bytes(encoded(noise(12, 16), kind, exif=exif))
        assert read_rgb(path).shape == (12, 16, 3)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_cut_file_is_never_half_a_picture(tmp_path: Path, kind: str) -> None:
    data = encoded(noise(24, 32), kind)
    path = tmp_path / "cut.bin"
    readers: list[Callable[[Path], np.ndarray]] = [read_rgb] if kind == "JPEG" else [read_rgb, read_labels]
    for length in [*range(0, len(data), max(1, len(data) // 60)), *range(len(data) - 16, len(data))]:
        path.write_bytes(data[:length])
        for read in readers:
            with pytest.raises(DataError, match=r"cut\.bin") as caught:
                read(path)
            assert f"{length} bytes" in str(caught.value), str(caught.value)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_lenient_decoder_is_not_asked_about_cut_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """OpenCV 4 gives half a picture for half a JPEG; OpenCV 5 does not."""
    monkeypatch.setattr("dvsn.portable.decode._decode_rgb", lambda data: np.zeros((24, 32, 3), np.uint8))
    data = encoded(noise(24, 32), kind)
    path = tmp_path / "cut.bin"
    path.write_bytes(data)
    assert read_rgb(path).max() == 0
    for length in (len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(DataError, match=rf"cut\.bin.*{length} bytes"):
            read_rgb(path)


def test_a_jpeg_cut_at_the_end_of_its_preview_is_refused(tmp_path: Path) -> None:
    preview, photo = encoded(noise(8, 8), "JPEG"), encoded(noise(24, 32), "JPEG")
    segment = b"\xff\xe1" + (len(preview) + 2).to_bytes(2, "big") + preview
    whole = photo[:2] + segment + photo[2:]
    path = tmp_path / "preview.jpg"
    path.write_bytes(whole)
    assert read_rgb(path).shape == (24, 32, 3)
    path.write_bytes(whole[: 2 + len(segment)])  # ends with the preview's own end mark
    with pytest.raises(DataError, match=r"preview\.jpg"):
        read_rgb(path)


def test_trailing_bytes_after_a_whole_picture_are_harmless(tmp_path: Path) -> None:
    for kind in ("PNG", "JPEG"):
        (tmp_path / "t").write_bytes(encoded(noise(), kind) + b"\0" * 100)
        assert read_rgb(tmp_path / "t").shape == (12, 16, 3)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        b"\x89PNG\r\n\x1a\nIEND\xaeB`\x82",
        b"\xff\xd8\xff\xd9",
        b"<html>not found</html>",
        bytes(5000),
    ],
)
def test_rubbish_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rubbish.png"
    path.write_bytes(content)
    for read in (read_rgb, read_colors, read_labels):
        with pytest.raises(DataError, match=rf"rubbish\.png.*{len(content)} bytes"):
            read(path)


def test_a_damaged_png_is_refused(tmp_path: Path) -> None:
    data = bytearray(encoded(noise(24, 32), "PNG"))
    data[len(data) // 2] ^= 0xFF
    (tmp_path / "bad.png").write_bytes(data)
    with pytest.raises(DataError, match=r"bad\.png.*damaged"):
        read_rgb(tmp_path / "bad.png")


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.png", tmp_path):
        with pytest.raises(DataError, match="cannot be read"):
            read_rgb(path)


def test_labels_keep_their_ids(tmp_path: Path) -> None:
    ids = np.array([[0, 1], [2, 255]], np.uint8)
    np.testing.assert_array_equal(read_labels(save(tmp_path / "l.png", ids)), ids)
    indexed = Image.fromarray(ids, "P")
    indexed.putpalette([v for i in range(256) for v in (255 - i, i // 2, 7)])
    indexed.save(tmp_path / "p.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "p.png"), ids)
    deep = np.array([[26001, 65535]], np.uint16)
    read = read_labels(save(tmp_path / "d.png", deep))
    assert read.dtype == np.int32
    np.testing.assert_array_equal(read, deep)


@pytest.mark.parametrize("channels, mode", [(3, "RGB"), (4, "RGBA"), (2, "LA")])
def test_colours_where_ids_are_expected(tmp_path: Path, channels: int, mode: str) -> None:
    path = save(tmp_path / "c.png", noise(channels=channels))
    with pytest.raises(DataError, match=rf"c\.png: found a picture of mode '{mode}'.*labels=color"):
        read_labels(path)


def test_ids_where_colours_are_expected_and_jpeg_ids(tmp_path: Path) -> None:
    path = save(tmp_path / "i.png", noise()[..., 0])
    with pytest.raises(DataError, match=r"i\.png: found a picture of mode 'L'"):
        read_colors(path)
    with pytest.raises(DataError, match="JPEG"):
        read_labels(save(tmp_path / "i.jpg", noise()[..., 0]))


def test_lists_and_names(tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_bytes(b"\xef\xbb\xbfa.png b.png\r\n\r\nc.png\td.png")
    assert read_rows(tmp_path / "l.txt") == [(1, ["a.png", "b.png"]), (3, ["c.png", "d.png"])]
    (tmp_path / "bad.txt").write_bytes(b"a.png b.png\nstra\xdfe.png b.png")
    with pytest.raises(DataError, match=r"bad.txt: not a text file in UTF-8; line 2: found the byte 0xdf"):
        read_rows(tmp_path / "bad.txt")
    for name in ("b.PNG", "a.jpg", "._a.jpg", "notes.txt", "10.png", "9.png"):
        save(tmp_path / "x" / name, noise()) if name[-3:] != "txt" else (tmp_path / name).touch()
    assert [path.name for path in list_pictures(tmp_path / "x")] == ["10.png", "9.png", "a.jpg", "b.PNG"]
    assert unique_names([Path("x/1.png"), Path("x/2.png")]) == ["1", "2"]
    assert unique_names([Path("x/1.png"), Path("y/1.png")]) == ["x_1", "y_1"]
    assert unique_names([Path("x/1.png"), Path("x/1.jpg")]) == ["x_1.png", "x_1.jpg"]


# --- the shared dataset ---------------------------------------------------------------------------


class Toy(ImageDataset):
    def __init__(self, result: Any = None, **options: Any) -> None:
        self.kinds, self.result = {"photo": "photo", "label": "label"}, result
        super().__init__(**options)

    def __len__(self) -> int:
        return 3

    def describe(self, index: int) -> str:
        return f"p{index}.png + l{index}.png"

    def name(self, index: int) -> str:
        return f"p{index}"

    def read(self, index: int) -> dict[str, Any]:
        if isinstance(self.result, Exception):
            raise self.result
        return dict(self.result or {"photo": noise(), "label": noise()[..., 0]})


def test_keys_of_an_item_and_its_seed() -> None:
    seeds: list[int] = []

    def transform(sample: dict[str, Any], seed: int) -> dict[str, Any]:
        seeds.append(seed)
        return sample

    data = Toy(transform=transform, seed=5)
    for key in (1, (0, 1), np.int64(1), -2, (4, 1)):
        assert (data[key]["index"], data[key]["name"]) == (1, "p1")
    assert len(set(seeds[:8])) == 1 and seeds[8] != seeds[0]
    assert seeds[0] == int(np.random.SeedSequence([5, 0, 1]).generate_state(1)[0]) == item_seed(5, 0, 1)
    assert len(list(data)) == 3  # the iteration protocol ends at an IndexError
    with pytest.raises(IndexError):
        data[3]
    with pytest.raises(ConfigError, match="seed"):
        Toy(seed=-1)


def test_every_error_names_the_files() -> None:
    with pytest.raises(DataError, match=r"p2\.png \+ l2\.png: KeyError: 'x'") as caught:
        Toy(KeyError("x"))[2]
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(DataError, match=r"^l0\.png: broken$"):
        Toy(DataError("l0.png: broken"))[0]
    with pytest.raises(ConfigError, match=r"^p0\.png \+ l0\.png: wrong$"):
        Toy(ConfigError("wrong"))[0]
    with pytest.raises(DataError, match=r"p0\.png \+ l0\.png.*photo is 12x16, label is 16x12.*EXIF"):
        Toy({"photo": noise(12, 16), "label": noise(16, 12)[..., 0]})[0]


# --- Cityscapes -----------------------------------------------------------------------------------


def test_cityscapes_reads_its_tree(tmp_path: Path) -> None:
    cityscapes(tmp_path)
    (tmp_path / "leftImg8bit/train/bonn/._bonn_000000_000019_leftImg8bit.png").write_bytes(b"mac")
    data = Cityscapes(root=str(tmp_path), split="train", instances=True)
    assert [data.name(i) for i in range(len(data))] == [
        f"{city}_{n:06d}_000019_leftImg8bit" for city in ("bonn", "ulm") for n in (0, 1)
    ]
    ids = Cityscapes(root=str(tmp_path), split="train", labels="ids")[2]["label"]
    item = data[2]
    stem = tmp_path / "gtFine/train/ulm/ulm_000000_000019_gtFine"
    np.testing.assert_array_equal(ids, np.asarray(Image.open(f"{stem}_labelIds.png")))
    np.testing.assert_array_equal(item["label"], CITY_PALETTE[ids])
    np.testing.assert_array_equal(item["instance"], ids.astype(np.int32) * 1000 + 7)
    assert item["instance"].dtype == np.int32 and item["photo"].shape == (12, 16, 3)
    for labels in ("color", "painted"):
        other = Cityscapes(root=str(tmp_path), split="train", labels=labels)
        np.testing.assert_array_equal(other[2]["label"], CITY_PALETTE[ids])
    trained = Cityscapes(root=str(tmp_path), split="train", labels="train_ids")
    np.testing.assert_array_equal(trained[2]["label"], TRAIN_ID_OF[ids])
    Path(f"{stem}_color.png").unlink()
    Path(f"{stem}_labelTrainIds.png").unlink()
    np.testing.assert_array_equal(
        Cityscapes(root=str(tmp_path), split="train")[2]["label"], CITY_PALETTE[ids]
    )
    trained = Cityscapes(root=str(tmp_path), split="train", labels="train_ids")
    np.testing.assert_array_equal(trained[2]["label"], TRAIN_ID_OF[ids])
    assert "ulm_000000_000019_leftImg8bit.png" in data.describe(2) and "_color.png" in data.describe(2)


def test_cityscapes_lists(tmp_path: Path) -> None:
    cityscapes(tmp_path, n=1)
    photo, label = (
        "leftImg8bit/train/{0}/{0}_000000_000019_leftImg8bit.png",
        "gtFine/train/{0}/{0}_000000_000019_gtFine_",
    )
    lines = [
        f"{photo} {label}labelTrainIds.png".format("ulm"),
        f"{photo}\t{label}labelIds.png".format("bonn"),
    ]
    (tmp_path / "train.list").write_text("\n".join(lines))  # without a newline at the end
    data = Cityscapes(root=str(tmp_path), split="train", list_file="{split}.list")
    assert [data.name(i)[:4] for i in range(2)] == ["ulm_", "bonn"]
    plain = Cityscapes(root=str(tmp_path), split="train")
    np.testing.assert_array_equal(data[0]["label"], plain[1]["label"])
    with pytest.raises(ConfigError, match=r"\{split\}"):
        Cityscapes(root=str(tmp_path), split="train", list_file="train.list")
    with pytest.raises(DataError, match=r"val\.list"):
        Cityscapes(root=str(tmp_path), split="val", list_file="{split}.list")
    (tmp_path / "train.list").write_text("only_a_photo.png\n")
    with pytest.raises(DataError, match=r"train\.list: line 1 has 1 names"):
        Cityscapes(root=str(tmp_path), split="train", list_file="{split}.list")
    (tmp_path / "train.list").write_text(f"none.png {label}color.png".format("ulm"))
    with pytest.raises(DataError, match=r"none\.png: no such file"):
        Cityscapes(root=str(tmp_path), split="train", list_file="{split}.list")


def test_cityscapes_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere(.|\n)*leftImg8bit/(.|\n)*data\.root"):
        Cityscapes(root=str(tmp_path / "nowhere"), split="train")
    cityscapes(tmp_path)
    with pytest.raises(DataError, match=r"trian: no such folder(.|\n)*'train'"):
        Cityscapes(root=str(tmp_path), split="trian")
    with pytest.raises(ConfigError, match="'ids'"):
        Cityscapes(root=str(tmp_path), split="train", labels="idz")  # type: ignore[arg-type]
    (tmp_path / "gtFine/train/ulm/ulm_000001_000019_gtFine_instanceIds.png").unlink()
    with pytest.raises(
        DataError, match=r"ulm_000001_000019_leftImg8bit\.png.*instance(.|\n)*instances=false"
    ):
        Cityscapes(root=str(tmp_path), split="train", instances=True)
    (tmp_path / "gtFine/train/ulm/ulm_000001_000019_gtFine_labelIds.png").unlink()
    with pytest.raises(
        DataError, match=r"ulm_000001_000019_leftImg8bit\.png.*ulm_000001_000019_gtFine_labelIds\.png"
    ):
        Cityscapes(root=str(tmp_path), split="train", labels="ids")


def test_cityscapes_refuses_foreign_labels(tmp_path: Path) -> None:
    cityscapes(tmp_path, cities=("ulm",), n=1)
    stem = tmp_path / "gtFine/train/ulm/ulm_000000_000019_gtFine"
    ids = np.full((12, 16), 7, np.uint8)
    ids[0, :3], ids[1, :2] = 77, 255
    save(Path(f"{stem}_labelIds.png"), ids)
    with pytest.raises(DataError, match=r"_labelIds\.png: 3 pixels hold ids outside label ids.*77"):
        Cityscapes(root=str(tmp_path), split="train", labels="ids")[0]
    save(Path(f"{stem}_labelTrainIds.png"), np.full((12, 16), 26, np.uint8))
    with pytest.raises(DataError, match=r"_labelTrainIds\.png: 192 pixels.*train ids.*26"):
        Cityscapes(root=str(tmp_path), split="train", labels="train_ids")[0]
    save(Path(f"{stem}_color.png"), ids)
    with pytest.raises(DataError, match=r"_color\.png: found a picture of mode 'L'"):
        Cityscapes(root=str(tmp_path), split="train")[0]
    save(Path(f"{stem}_labelIds.png"), noise())
    with pytest.raises(DataError, match=r"_labelIds\.png: found a picture of mode 'RGB'"):
        Cityscapes(root=str(tmp_path), split="train", labels="ids")[0]


# --- CamVid ---------------------------------------------------------------------------------------


def test_camvid_segnet_copy(tmp_path: Path) -> None:
    ids = RNG.integers(0, 12, (12, 16), np.uint8)
    for name in ("0001TP_1", "0001TP_2", "0001TP_3"):
        save(tmp_path / "train" / f"{name}.png", noise())
        save(tmp_path / "trainannot" / f"{name}.png", ids)
    data = CamVid(root=str(tmp_path), split="train")
    assert [data.name(i) for i in range(len(data))] == ["0001TP_1", "0001TP_2", "0001TP_3"]
    np.testing.assert_array_equal(data[0]["label"], PALETTE[ids])
    np.testing.assert_array_equal(CamVid(root=str(tmp_path), split="train", labels="ids")[0]["label"], ids)
    rows = [
        f"/SegNet/CamVid/train/{n}.png /SegNet/CamVid/trainannot/{n}.png" for n in ("0001TP_3", "0001TP_1")
    ]
    (tmp_path / "train.txt").write_text("\n".join(rows))
    data = CamVid(root=str(tmp_path), split="train")
    assert [data.name(i) for i in range(len(data))] == ["0001TP_3", "0001TP_1"]
    (tmp_path / "trainannot/0001TP_1.png").unlink()
    with pytest.raises(
        DataError, match=r"trainannot/0001TP_1\.png: no such file; it belongs to.*train/0001TP_1\.png"
    ):
        CamVid(root=str(tmp_path), split="train")
    save(tmp_path / "trainannot/0001TP_3.png", np.full((12, 16), 12, np.uint8))
    (tmp_path / "train.txt").write_text(rows[0])
    with pytest.raises(DataError, match=r"0001TP_3\.png: 192 pixels hold ids outside 0\.\.11: 12"):
        CamVid(root=str(tmp_path), split="train", labels="ids")[0]
    with pytest.raises(ConfigError, match="original colour labels"):
        CamVid(root=str(tmp_path), split="train", labels="ids", classes="exact")


@pytest.mark.parametrize("folders", [("701_StillsRaw_full", "LabeledApproved_full"), ("images", "labels")])
def test_camvid_original(tmp_path: Path, folders: tuple[str, str]) -> None:
    table = np.array([each.rgb for each in COLORS], np.uint8)
    which = RNG.integers(0, 32, (12, 16))
    for name in ("0001TP_006690", "0016E5_07959", "Seq05VD_f00000"):
        save(tmp_path / folders[0] / f"{name}.png", noise())
        save(tmp_path / folders[1] / f"{name}_L.png", table[which])
    data = CamVid(root=str(tmp_path), split="val")
    assert [data.name(i) for i in range(len(data))] == ["0016E5_07959"]
    np.testing.assert_array_equal(data[0]["label"], table[which])
    grouped = CamVid(root=str(tmp_path), split="test", labels="ids")[0]["label"]
    np.testing.assert_array_equal(grouped, np.array([each.grouped for each in COLORS])[which])
    exact = CamVid(root=str(tmp_path), split="train", labels="ids", classes="exact")[0]["label"]
    np.testing.assert_array_equal(exact, np.array([each.exact for each in COLORS])[which])
    (tmp_path / "val.txt").write_text(f"{folders[0]}/0001TP_006690.png {folders[1]}/0001TP_006690_L.png")
    assert CamVid(root=str(tmp_path), split="val").name(0) == "0001TP_006690"
    (tmp_path / folders[1] / "0001TP_006690_L.png").unlink()
    with pytest.raises(DataError, match=r"0001TP_006690_L\.png: no such file"):
        CamVid(root=str(tmp_path), split="val")


def test_camvid_colours_by_hand() -> None:
    assert len(COLORS) == len({each.rgb for each in COLORS}) == 32
    assert sorted(each.exact for each in COLORS if each.exact < 255) == list(range(11))
    colors = np.array([[[128, 0, 192], [192, 128, 192], [0, 0, 0], [0, 128, 192]]], np.uint8)
    assert ids_of_colors(colors, Path("x")).tolist() == [[3, 8, VOID, 10]]
    assert ids_of_colors(colors, Path("x"), classes="exact").tolist() == [[255, 255, 255, 0]]
    big = np.zeros((20, 20, 3), np.uint8)
    big[0, :4] = 63, 1, 127
    assert (ids_of_colors(big, Path("x")) == VOID).all()  # 1 % may be stray
    big[0, :5] = 63, 1, 127
    with pytest.raises(DataError, match=r"x: 1\.2% .*\(63, 1, 127\)"):
        ids_of_colors(big, Path("x"))


def test_camvid_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"(.|\n)*trainannot(.|\n)*701_StillsRaw_full(.|\n)*data\.root"):
        CamVid(root=str(tmp_path / "none"), split="train")
    with pytest.raises(DataError, match="train: no such folder"):
        CamVid(root=str(tmp_path), split="train")
    with pytest.raises(DataError, match="neither"):
        CamVid(root=str(tmp_path), split="train", layout="original")


REAL = Path(os.environ.get("DVSN_DATA", "data")) / "camvid"


@pytest.mark.skipif(
    not REAL.is_dir(), reason="needs the real CamVid: set DVSN_DATA to the folder that holds camvid/"
)
def test_real_camvid() -> None:
    for split, size in (("train", 367), ("val", 101), ("test", 233)):
        data = CamVid(root=str(REAL), split=split, labels="ids")
        assert len(data) == size
        assert all(split_of(data.name(i)) == split for i in range(size))  # the rule gives SegNet's lists
        item = data[size // 2]
        assert item["photo"].shape == (360, 480, 3) and item["label"].shape == (360, 480)
        painted = CamVid(root=str(REAL), split=split)[size // 2]["label"]
        np.testing.assert_array_equal(painted, PALETTE[item["label"]])


# --- side by side, and two folders ----------------------------------------------------------------


def test_aligned_is_cut_in_the_middle(tmp_path: Path) -> None:
    picture = noise(8, 20)
    for name in ("10.png", "9.png"):
        save(tmp_path / "val" / name, picture)
    data = Aligned(root=str(tmp_path), split="val")
    assert [data.name(i) for i in range(2)] == ["10", "9"]
    np.testing.assert_array_equal(data[0]["a"], picture[:, :10])
    np.testing.assert_array_equal(data[0]["b"], picture[:, 10:])
    assert data.kinds == {"a": "photo", "b": "photo"}


def test_aligned_refuses_what_is_no_pair(tmp_path: Path) -> None:
    save(tmp_path / "train/odd.png", noise(8, 21))
    save(tmp_path / "train/single.png", noise(16, 16))
    data = Aligned(root=str(tmp_path), split="train")
    with pytest.raises(DataError, match=r"odd\.png: 21 pixels wide"):
        data[0]
    with pytest.raises(DataError, match=r"single\.png: 16x16.*single picture(.|\n)*narrow=true"):
        data[1]
    assert Aligned(root=str(tmp_path), split="train", narrow=True)[1]["b"].shape == (16, 8, 3)
    with pytest.raises(DataError, match=r"val: no such folder(.|\n)*train"):
        Aligned(root=str(tmp_path), split="val")
    (tmp_path / "test").mkdir()
    with pytest.raises(DataError, match="no picture"):
        Aligned(root=str(tmp_path), split="test")


@pytest.mark.parametrize("layout", ["train/{}", "{}/train", "train{}"])
def test_folders_match_by_stem(tmp_path: Path, layout: str) -> None:
    first, second = tmp_path / layout.format("A"), tmp_path / layout.format("B")
    photos, ids = {}, {}
    for name in ("x", "y", "z"):
        photos[name], ids[name] = noise(), noise()[..., 0]
        save(first / f"{name}.png", photos[name])
        save(second / f"{name}.PNG", ids[name])
    data = Folders(root=str(tmp_path), split="train", a="A", b="B", b_kind="ids")
    assert [data.name(i) for i in range(3)] == ["x", "y", "z"] and data.kinds == {"a": "photo", "b": "label"}
    np.testing.assert_array_equal(data[1]["a"], photos["y"])
    np.testing.assert_array_equal(data[1]["b"], ids["y"])


def test_folders_that_differ(tmp_path: Path) -> None:
    for name in ("a/train/1.png", "a/train/2.png", "b/train/2.jpg", "b/train/3.jpg", "b/train/4.jpg"):
        save(tmp_path / name, noise())
    with pytest.raises(DataError, match=r"1 only in .*a.train: 1\n  2 only in .*b.train: 3, 4"):
        Folders(root=str(tmp_path), split="train")
    for name in ("a/val/1.png", "a/val/1.jpg", "b/val/1.jpg"):
        save(tmp_path / name, noise())
    with pytest.raises(DataError, match="a second file of this name"):
        Folders(root=str(tmp_path), split="val")
    with pytest.raises(DataError, match=r"found a/, b/\. Expected one of(.|\n)*test/a/NAME"):
        Folders(root=str(tmp_path), split="test")
    for name in ("a/odd/1.png", "b/odd/1.png"):
        save(tmp_path / name, noise(12, 16 if name[0] == "a" else 20))
    with pytest.raises(DataError, match=r"a.odd.1\.png \+ .*b.odd.1\.png.*a is 12x16, b is 12x20"):
        Folders(root=str(tmp_path), split="odd")[0]
