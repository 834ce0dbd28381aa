"""The options of `python -m dvsn.predict`, and which of them every task takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dvsn.command_line import REQUIRED, UNPACKED, Command, Option
from dvsn.errors import ConfigError

COMMAND = Command(
    name="predict",
    summary="Run a checkpoint on pictures, videos, a camera or a stream.",
    options=(
        Option("checkpoint", REQUIRED, "a checkpoint, or the folder of a run, or runs/NAME: the best of the newest"),
        Option("input", REQUIRED, "pictures, videos, folders (with all below them), globs, lists of paths (.txt), the "
                        "number of a camera (0), or - for frames on standard input; any number of them", rest=True),
        Option("output", "predictions", "folder of the results: a PNG a picture, an MP4 a video, and of pose "
                        "keypoints.json, of landmarks landmarks.json, of detection detections.json, in COCO's results "
                        "format, of classification classes.csv and .json"),
        Option("size", "recipe", "recipe: the checkpoint's own evaluation size; keep: the picture's (padded "
                        "to what the network needs and cropped back); or HEIGHTxWIDTH"),
        Option("write", None, "what: of pix2pix picture; of segmentation color, overlay, ids, or submission (ids "
                        "of the data set's test server); of classification cards (and the table) or table; null: the first, "
                        "of segmentation of a video overlay"),
        Option("frames", "video", "of a video, camera or stream: video, or pictures: a PNG a frame"),
        Option("limit", None, "of a video, camera or stream: at most so many frames"),
        Option("show", False, "show the results in a window while they come; q closes it"),
        Option("resume", True, "go on with a folder whose run was broken off; false: begin again"),
        Option("track", False, "objects, people, faces keep their numbers over the frames of a video, or of the pictures "
                        "of a folder by name (ByteTrack)"),
        Option("smooth", False, "keypoints, faces' points and boxes of such frames are made calm by a One-Euro filter"),
        Option("fps", 30.0, "frames in a second of pictures that are frames, and of standard input"),
        Option("min_cutoff", 1.0, "smooth: Hz; lower is calmer, at rest"),
        Option("beta", 20.0, "smooth: Hz more for a speed of one box's side a second; higher follows faster"),
        Option("raw", None, "standard input has raw pixels of frames of WIDTHxHEIGHT, such as 640x480; null: JPEGs, one "
                        "after the other"),
        Option("pixel_format", "rgb24", "raw: FFmpeg's name of the pixels' order, such as rgb24, bgr24, yuv420p, gray"),
        Option("inference.mode", None, "segmentation, pix2pix: whole, or slide for pictures that do not fit; null: as the "
                        "recipe"),
        Option("inference.window", None, "slide: [HEIGHT,WIDTH]"),
        Option("inference.stride", None, "slide: [HEIGHT,WIDTH]; null: two thirds of the window"),
        Option("inference.blend", None, "slide: where windows overlap all count the same (even), each less towards its "
                        "border (ramp), or the nearest alone (centre)"),
        Option("inference.scales", None, "segmentation: such as [0.75,1,1.25]: averaged"),
        Option("inference.flip", None, "segmentation: true: averaged with the mirrored picture"),
        Option("inference.resize", None, "segmentation: to [HEIGHT,WIDTH], or to a shorter side such as 520; the answer has "
                        "the picture's size"),
        Option("flip", None, "pose, landmarks: average with the mirrored crop, as flip_test of evaluate; null: as the "
                        "recipe"),
        Option("original_size", False, "resize each result to its picture's size at the end"),
        Option("side_by_side", False, "write input and result in one picture"),
        Option("upright", True, "turn pictures by their orientation tag, as viewers do; false: as stored, as in training"),
        Option("max_pixels", 200_000_000, "of the largest picture that is read"),
        Option("big_pixels", 50_000_000, "with inference.mode=slide: from so many pixels on, a TIFF, PNG or "
                        "JPEG is read, asked and written window by window, to a tiled TIFF; needs rasterio"),
        UNPACKED,
        Option("batch_size", 1, "pictures of one size at a time; of pose and landmarks people and faces"),
        Option("boxes", "image", "pose, landmarks: where people or faces are. image: the whole picture; "
                        "FILE.json: annotations or detections in COCO's format; FILE.ckpt, runs/NAME or "
                        "hf://OWNER/NAME: a dvsn detection checkpoint; "
                        "FILE.pth: weights of a detector of torchvision, with detector=NAME; FILE.onnx: weights of "
                        "YuNet, which finds faces"),
        Option("annotations", None, "pose, landmarks: COCO file with the pictures' ids, for detections of "
                        "pictures that are not called by their number"),
        Option("detector", None, "pose, landmarks: the model of FILE.pth, such as fasterrcnn_resnet50_fpn; of "
                        "faces also yunet, of FILE.onnx, or haar, which OpenCV 4 ships with its weights"),
        Option("category", None, "pose, landmarks: the number of people or faces among the boxes' categories; "
                        "null: person or face"),
        Option("score", None, "objects, people's and faces' boxes below it are left out; null: 0.5 of people "
                        "and faces, 0.6 of YuNet, of detection as the recipe"),
        Option("padding", None, "landmarks: the crop's side, as a factor of the box's longer one. null: as "
                        "trained, 1.2 of the points' box, to which boxes of yunet and haar are brought first; of whole "
                        "pictures 1: they should show the face with 10 % around it, wider ones want less"),
        Option("nms", 0.9, "pose: people more alike than this (OKS) to a better one are left out"),
        Option("joint_score", 0.2, "pose, landmarks: keypoints of less confidence are not drawn"),
        Option("points", True, "landmarks: draw them as dots"),
        Option("outline", True, "landmarks: draw the lines between them"),
        Option("axes", True, "landmarks: draw how the head is turned: red to its side, green down, blue forward"),
        Option("top", 5, "classification: how many classes of a picture are written"),
        Option("device", "auto", "auto, cpu, cuda, cuda:1, mps"),
        Option("seed", 0, "for networks tested with dropout"),
    ),
    examples=(
        "python -m dvsn.predict runs/demo/segmentation/checkpoints/best.ckpt data/street/leftImg8bit/test output=seen",
        "python -m dvsn.predict checkpoint=best.ckpt input='gtFine/val/*/*_color.png' size=keep",
        "python -m dvsn.predict pidnet.ckpt leftImg8bit/test write=submission output=results",
        "python -m dvsn.predict resnet8x4.ckpt photos top=3 size=32x32",
        "python -m dvsn.predict hrnet_w32.ckpt photos boxes=detector.ckpt score=0.7 batch_size=32",
        "python -m dvsn.predict pfld.ckpt frames/ boxes=face_detection_yunet_2023mar.onnx smooth=true fps=25",
        "python -m dvsn.predict pidnet.ckpt drive.mp4 photos/*.jpg output=seen",
        "python -m dvsn.predict detector.ckpt clip.mp4 track=true",
        "python -m dvsn.predict hrnet_w32.ckpt 0 show=true",
        "ffmpeg -i clip.mkv -f mjpeg -q:v 2 - | python -m dvsn.predict pidnet.ckpt - output=seen",
    ),
)  # fmt: skip


SHARED = (
    "checkpoint", "input", "output", "upright", "max_pixels", "max_unpacked", "batch_size", "device", "seed", "limit",
    "fps", "frames", "raw", "pixel_format", "resume", "show",
)  # fmt: skip
"""Options that every task takes."""


def refuse_others(options: dict[str, Any], names: Sequence[str], kind: str) -> None:
    """Raise `ConfigError` for an option that was given and that the task `kind` does not know beside `SHARED`."""
    for option in COMMAND.options:
        known = option.name in (*SHARED, *names) or option.name.partition(".")[0] in names
        if not known and options[option.name] != option.default:
            raise ConfigError(
                f"{option.name}: the task '{kind}' has no such option. It has {', '.join((*SHARED, *names))}."
            )
