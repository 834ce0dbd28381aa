"""Who walks where, and how: a person's looks, pose and skeleton, in metres of the world's frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dvsn.data.street.light import Color, pick

SKINS: tuple[Color, ...] = (
    (240, 208, 182),
    (226, 184, 152),
    (206, 158, 122),
    (170, 120, 88),
    (124, 84, 60),
    (92, 62, 46),
)
HAIRS: tuple[Color, ...] = (
    (42, 32, 28),
    (82, 56, 38),
    (126, 88, 52),
    (188, 150, 92),
    (60, 58, 58),
    (176, 172, 168),
    (110, 52, 34),
)
SHIRTS: tuple[Color, ...] = (
    (196, 40, 44), (40, 70, 140), (232, 232, 230), (48, 50, 56), (72, 120, 84), (224, 170, 56),
    (150, 96, 150), (96, 146, 178), (180, 110, 70), (120, 124, 130), (214, 120, 140), (34, 92, 98),
)  # fmt: skip
TROUSERS: tuple[Color, ...] = (
    (44, 56, 88),
    (34, 34, 40),
    (96, 88, 78),
    (150, 138, 116),
    (70, 84, 110),
    (88, 50, 46),
)


@dataclass(frozen=True)
class Walker:
    """A person: ground point, stature in metres, heading in radians (0 walks away from us, pi towards us)."""

    x: float
    z: float
    ground: float
    stature: float
    heading: float
    phase: float
    stride: float  # radians of thigh swing
    gaze: tuple[float, float, float]  # the head against the body: pitch, yaw, roll in radians
    skin: Color
    hair: Color
    shirt: Color
    trousers: Color
    long_hair: bool
    skirt: bool
    bag: bool
    mouth: float  # 0 shut .. 1 open
    smile: float
    jaw: float
    brow: float


def choose_walker(rng: np.random.Generator, *, x: float, z: float, ground: float, heading: float) -> Walker:
    child = rng.random() < 0.12
    standing = rng.random() < 0.25
    woman = rng.random() < 0.5
    return Walker(
        x=x,
        z=z,
        ground=ground,
        stature=float(rng.uniform(1.15, 1.4) if child else rng.uniform(1.6, 1.9)),
        heading=heading,
        phase=float(rng.uniform(0, 2 * np.pi)),
        stride=float(rng.uniform(0.02, 0.12) if standing else rng.uniform(0.3, 0.48)),
        gaze=(float(rng.normal(0, 0.08)), float(rng.normal(0, 0.25)), float(rng.normal(0, 0.06))),
        skin=pick(rng, SKINS, 0.88, 1.1),
        hair=pick(rng, HAIRS, 0.88, 1.1),
        shirt=pick(rng, SHIRTS, 0.88, 1.1),
        trousers=pick(rng, TROUSERS, 0.88, 1.1),
        long_hair=bool(woman and rng.random() < 0.7),
        skirt=bool(woman and rng.random() < 0.3),
        bag=bool(rng.random() < 0.3),
        mouth=float(max(0.0, rng.normal(0, 0.35))),
        smile=float(rng.normal(0.5, 0.5)),
        jaw=float(rng.normal(1.0, 0.06)),
        brow=float(rng.normal(0, 0.06)),
    )


def skeleton(walker: Walker) -> dict[str, np.ndarray]:
    """World positions of the body joints, and of `neck` and `head` (the centre of the skull)."""
    h = walker.stature
    cos, sin = np.cos(walker.heading), np.sin(walker.heading)
    swing = walker.stride * np.sin(walker.phase)

    def place(right: float, up: float, forward: float) -> np.ndarray:
        return np.array(
            [
                walker.x + right * cos + forward * sin,
                walker.ground + up,
                walker.z - right * sin + forward * cos,
            ]
        )

    local: dict[str, tuple[float, float, float]] = {}
    for name, sign in (("left", -1.0), ("right", 1.0)):
        thigh = swing * sign
        bend = max(0.0, 0.9 * walker.stride * np.sin(walker.phase * 1.0 + (0.9 if sign > 0 else np.pi + 0.9)))
        shin = thigh - bend - 0.03
        hip = np.array([sign * 0.052 * h, 0.0, 0.0])
        knee = hip + 0.245 * h * np.array([0.0, -np.cos(thigh), np.sin(thigh)])
        ankle = knee + 0.245 * h * np.array([0.0, -np.cos(shin), np.sin(shin)])
        shoulder = np.array([sign * 0.100 * h, 0.295 * h, 0.01 * h])
        arm = -0.9 * thigh
        elbow = shoulder + 0.17 * h * np.array([0.12 * sign, -np.cos(arm), np.sin(arm)])
        lower = arm + 0.25 + 0.5 * walker.stride
        wrist = elbow + 0.15 * h * np.array([0.02 * sign, -np.cos(lower), np.sin(lower)])
        for joint, point in (
            ("hip", hip),
            ("knee", knee),
            ("ankle", ankle),
            ("shoulder", shoulder),
            ("elbow", elbow),
            ("wrist", wrist),
        ):
            local[f"{name}_{joint}"] = (float(point[0]), float(point[1]), float(point[2]))
    local["neck"] = (0.0, 0.335 * h, 0.015 * h)
    local["head"] = (0.0, 0.425 * h, 0.03 * h)
    lift = 0.045 * h - min(
        local["left_ankle"][1], local["right_ankle"][1]
    )  # the lower foot stands on the ground
    return {name: place(x, y + lift, z) for name, (x, y, z) in local.items()}
