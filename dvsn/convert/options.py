"""The options of `python -m dvsn.convert`, and its help."""

from __future__ import annotations

from dvsn.command_line import REQUIRED, UNPACKED, Command, Option

COMMAND = Command(
    name="convert",
    summary="Turn a published checkpoint into a dvsn checkpoint, or one in parts into a whole file.",
    options=(
        Option(
            "source",
            REQUIRED,
            "the published network, such as latest_net_G.pth or PIDNet_S_Cityscapes_val.pt; or a folder that "
            "trainer.fsdp_checkpoint=sharded wrote",
        ),
        Option("output", REQUIRED, "the checkpoint to write, such as facades.ckpt"),
        Option(
            "align_corners",
            None,
            "HRNet: how it and its task resize, which its keys do not tell; null: a guess, noted",
        ),
        Option(
            "channels",
            None,
            "SimpleBaseline: rgb or bgr, as it was trained; null: bgr, of mmpose's files rgb",
        ),
        Option(
            "codec",
            "msra",
            "of heatmaps: how they were made and are read, which the keys do not tell: msra, dark (mmpose's), dark_unbiased "
            "(its authors') or udp",
        ),
        Option(
            "size",
            None,
            "of heatmaps: [HEIGHT,WIDTH] of the crops, which the keys do not tell; null: a guess, noted",
        ),
        Option(
            "data",
            None,
            "the data set that knows the names: of keypoints, such as coco or wflw, null: one by their number, noted; "
            "of the classes of small pictures, null: cifar10 or cifar100",
        ),
        Option(
            "container",
            None,
            "the entry of a training script's file with the weights, such as model_ema; null: model, state_dict, ...",
        ),
        Option("joints", None, "of an ImageNet file for pose: how many keypoints the new head has; null: 17"),
        Option("heads", None, "a segmenter's training heads; false leaves them out, null: as the file is"),
        Option("discriminator", None, "the published discriminator, to go on training with it"),
        Option("dropout", None, "the dropout rate, which the keys may not tell"),
        Option("value_range", None, "of a generator, signed or unit; null: what the release trains with"),
        Option(
            "test_dropout",
            False,
            "a generator's dropout when used; the authors' release has it on unless --no_dropout",
        ),
        Option(
            "test_norm",
            "running",
            "a generator's running or batch statistics; the authors' release tests with batch",
        ),
        UNPACKED,
    ),
    examples=(
        "python -m dvsn.convert PIDNet_S_Cityscapes_val.pt pidnet_s.ckpt heads=false",
        "python -m dvsn.convert pose_hrnet_w32_384x288.pth pose.ckpt size=[384,288]",
        "python -m dvsn.convert resnet32x4_vanilla/ckpt_epoch_240.pth resnet32x4.ckpt",
        "python -m dvsn.convert latest_net_G.pth facades.ckpt",
        "python -m dvsn.convert runs/teacher/checkpoints/best.ckpt whole.ckpt",
        "python -m dvsn.convert source=latest_net_G.pth output=facades.ckpt test_norm=batch discriminator=latest_net_D.pth",
    ),
)
