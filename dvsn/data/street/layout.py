"""Where things stand along the street: positions in world metres, painted later from far to near."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from dvsn.data.street.buildings import paint_building
from dvsn.data.street.canvas import Canvas
from dvsn.data.street.furniture import paint_lamp, paint_sign, paint_traffic_light
from dvsn.data.street.geometry import FAR, Camera
from dvsn.data.street.light import choose_light
from dvsn.data.street.people import Figure, paint_person
from dvsn.data.street.plants import paint_hedge, paint_tree
from dvsn.data.street.road import choose_road, paint_ground
from dvsn.data.street.shadows import Shadows
from dvsn.data.street.sky import paint_sky, paint_skyline
from dvsn.data.street.vehicles import PAINTS, Vehicle, paint_vehicle
from dvsn.data.street.walkers import choose_walker
from dvsn.data.street.walls import paint_fence


class Street:
    """One street of `height` x `width` pixels, all of it drawn from `rng`."""

    def __init__(self, rng: np.random.Generator, height: int, width: int) -> None:
        self.rng = rng
        light = choose_light(rng)
        camera = Camera(
            focal=float(rng.uniform(0.62, 0.92)) * (width + height) / 1.5,
            center=width * float(rng.uniform(0.36, 0.64)),
            horizon=height * float(rng.uniform(0.40, 0.52)),
            eye=float(rng.uniform(1.45, 2.3)),
            bend=float(rng.choice([0.0, 1.0], p=[0.4, 0.6]) * rng.uniform(-1, 1) * 7e-4),
        )
        self.canvas = Canvas(height, width, camera, light)
        self.road = choose_road(rng)
        self.shadows = Shadows(self.canvas)
        self.jobs: list[tuple[float, Callable[[], object]]] = []
        self.taken: list[tuple[float, float, float]] = []  # X, Z and radius of what stands somewhere
        self.figures: list[Figure] = []  # filled by `paint`, from far to near
        self.vehicles: list[int] = []  # instance values, likewise

    def later(self, depth: float, job: Callable[[], object]) -> None:
        """Paint it after everything that is further away, or as far and planned before."""
        self.jobs.append((depth, job))

    def paint(self) -> None:
        """Paint everything, from far to near."""
        paint_sky(self.canvas, self.rng)
        paint_skyline(self.canvas, self.rng)
        paint_ground(self.canvas, self.rng, self.road)
        for side in (-1, 1):
            self.plan_buildings(side)
            self.plan_furniture(side)
        self.plan_vehicles()
        self.plan_people()
        for _, job in sorted(self.jobs, key=lambda each: -each[0]):
            job()

    def plan_buildings(self, side: int) -> None:
        rng, inner = self.rng, self.road.front(side)
        park = rng.random() < 0.16
        base = float(rng.uniform(7, 19))
        z = float(rng.uniform(2.2, 6.0))
        exposed = True
        while z < FAR:
            length = float(rng.uniform(8, 20))
            end = z + length
            if self.road.crossing and z < self.road.crossing + 11 and end > self.road.crossing - 2:
                if self.road.crossing - 2 - z > 4:
                    end = self.road.crossing - 2
                else:
                    z, exposed = self.road.crossing + 11, True
                    continue
            draw = rng.random()
            if park or draw < 0.12:
                self.plan_green(side, inner, z, end)
                exposed = True
            else:
                set_back = float(rng.choice([0.0, 0.0, 0.0, 0.8, 2.5]))
                height = max(5.5, base + float(rng.normal(0, 3.2)))
                job = partial(
                    paint_building,
                    self.canvas,
                    rng,
                    side=side,
                    inner=inner + set_back,
                    start=z,
                    end=end,
                    height=height,
                    exposed=exposed,
                )
                self.later(end, job)
                exposed = False
                self.shadows.block(side, inner + set_back, z, end, height)
            z = end
            if rng.random() < 0.15:
                z, exposed = z + float(rng.uniform(2, 7)), True

    def plan_green(self, side: int, inner: float, start: float, end: float) -> None:
        rng = self.rng
        for _ in range(int(rng.integers(2, 5))):
            x, z = side * (inner + float(rng.uniform(1.5, 9))), float(rng.uniform(start, end))
            height = float(rng.uniform(5, 12))
            behind = end + 0.01 + 1e-3 * (z - start)  # the fence stands before them, whatever their depth
            self.later(behind, partial(paint_tree, self.canvas, rng, x, z, height))
        kind = int(rng.integers(3))
        edge = inner + 0.3
        if kind == 0:
            job: Callable[[], Any] = partial(
                paint_hedge,
                self.canvas,
                rng,
                side=side,
                inner=edge,
                start=start,
                end=end,
                height=float(rng.uniform(1.1, 2.2)),
            )
        else:
            job = partial(
                paint_fence, self.canvas, rng, side=side, inner=edge, start=start, end=end, solid=kind == 1
            )
        self.later(end, job)

    def plan_furniture(self, side: int) -> None:
        """Trees, lamps, signs and traffic lights near the curb."""
        rng, canvas = self.rng, self.canvas
        x = side * (self.road.edge(side) + 0.6)
        spacing = float(rng.uniform(9, 18))
        trees, height = rng.random() < 0.5, float(rng.uniform(5.5, 9.5))
        for z in np.arange(float(rng.uniform(6, 14)), 110, spacing).tolist():
            if not self.road.clear(z) or rng.random() < 0.15:
                continue
            if trees:
                tall = height * float(rng.uniform(0.85, 1.15))
                at = x + side * float(rng.uniform(0, 0.3))
                self.later(z, partial(paint_tree, canvas, rng, at, z, tall))
                self.shadows.disc(at, z, tall * 0.7, tall * 0.28)
                self.shadows.post(at, z, tall * 0.5, 0.25)
                self.taken.append((at, z, 0.5))
        lamp, every = rng.random() < 0.8, float(rng.uniform(16, 28))
        for z in np.arange(float(rng.uniform(5, 18)), 120, every).tolist() if lamp else ():
            if self.road.clear(z):
                tall = float(rng.uniform(5.5, 7.5))
                self.later(z + 0.1, partial(paint_lamp, canvas, x, z + 0.1, side, tall))
                self.shadows.post(x, z, tall, 0.12)
                self.taken.append((x, z, 0.4))
        for _ in range(int(rng.integers(0, 4))):
            z = float(rng.uniform(6, 40))
            if self.road.clear(z):
                self.later(z, partial(paint_sign, canvas, rng, x - side * 0.15, z))
                self.shadows.post(x, z, 2.5, 0.1)
                self.taken.append((x, z, 0.4))
        if self.road.crossing and (side > 0 or rng.random() < 0.6):
            state = int(rng.integers(3))
            z = self.road.crossing - 5.6
            self.later(z, partial(paint_traffic_light, canvas, x - side * 0.2, z, state))
            self.shadows.post(x, z, 3.3, 0.15)
            self.taken.append((x, z, 0.4))

    def free(self, x: float, z: float, radius: float) -> bool:
        """Nothing stands within `radius` metres."""
        for a, b, r in self.taken:
            if -radius - r < z - b < radius + r and (x - a) ** 2 + (z - b) ** 2 < (radius + r) ** 2:
                return False
        return True

    def plan_vehicles(self) -> None:
        rng = self.rng
        first_lane = self.road.left + self.road.parking[0] + self.road.lane / 2
        for k in range(self.road.lanes):
            x = first_lane + k * self.road.lane
            oncoming = x < self.road.split
            z = float(rng.uniform(7, 30)) + (4 if abs(x) < 1.5 else 0)
            while z < 80:
                if rng.random() < 0.6 and self.road.drivable(z):
                    self.add_vehicle(x + float(rng.normal(0, 0.15)), z, np.pi if oncoming else 0.0)
                z += float(rng.uniform(8, 30))
        for side, wide in ((-1, self.road.parking[0]), (1, self.road.parking[1])):
            z = float(rng.uniform(4, 10))
            busy = float(rng.uniform(0.3, 0.95))
            while wide and z < 65:
                if rng.random() < busy and self.road.drivable(z) and self.road.clear(z - 2.5):
                    self.add_vehicle(
                        side * (self.road.edge(side) - 1.12), z, 0.0 if side > 0 else np.pi, parked=True
                    )
                z += float(rng.uniform(5.2, 6.4))
        if self.road.crossing and rng.random() < 0.6:
            for _ in range(int(rng.integers(1, 3))):
                toward = 1 if rng.random() < 0.5 else -1
                z = self.road.crossing + (2.6 if toward > 0 else 6.2)
                self.add_vehicle(float(rng.uniform(-14, 14)), z, toward * np.pi / 2)

    def add_vehicle(self, x: float, z: float, heading: float, *, parked: bool = False) -> None:
        rng = self.rng
        kind = str(rng.choice(["sedan", "hatch", "suv", "van", "bus"], p=[0.33, 0.33, 0.2, 0.1, 0.04]))
        if kind == "bus" and (parked or z < 18 or abs(np.sin(heading)) > 0.5):
            kind = "van"
        color = PAINTS[int(rng.integers(len(PAINTS)))]
        vehicle = Vehicle(kind, x, z, heading + float(rng.normal(0, 0.015)), color)
        across = abs(np.sin(heading)) > 0.5
        half = vehicle.length / 2
        spots = [(x + s * half * 0.6, z) if across else (x, z + s * half * 0.7) for s in (-1.0, 0.0, 1.0)]
        if z - half < 2.5 or not all(self.free(a, b, 1.2) for a, b in spots):
            return
        self.taken += [(a, b, 1.15) for a, b in spots]
        self.later(
            z - half * (0.0 if across else 0.3),
            lambda: self.vehicles.append(paint_vehicle(self.canvas, vehicle)),
        )
        base = vehicle.footprint()
        self.shadows.under(base, 1.4)

    def plan_people(self) -> None:
        rng = self.rng
        for side in (-1, 1):
            for _ in range(int(rng.poisson(2.6))):
                z = float(rng.uniform(5, 12) if rng.random() < 0.4 else rng.uniform(8, 45))
                inside = float(rng.uniform(0.9, self.road.walk[0 if side < 0 else 1] - 0.4))
                heading = float(rng.choice([0.0, np.pi])) + float(rng.normal(0, 0.3))
                if self.road.clear(z):
                    self.add_person(side * (self.road.edge(side) + inside), z, 0.12, heading)
        if self.road.zebra:
            for _ in range(int(rng.integers(0, 4))):
                x = float(rng.uniform(self.road.left, self.road.right))
                heading = float(rng.choice([-1.0, 1.0])) * (np.pi / 2 + float(rng.normal(0, 0.25)))
                self.add_person(x, self.road.zebra + float(rng.uniform(0.3, 2.7)), 0.0, heading)
        if rng.random() < 0.35:  # somebody close by, looking our way
            hips = (
                self.canvas.camera.focal
                * (self.canvas.camera.eye - 0.8)
                / (self.canvas.height - self.canvas.camera.horizon)
            )
            z = max(3.2, hips) * float(rng.uniform(1.0, 1.8))
            reach = 0.42 * self.canvas.width * z / self.canvas.camera.focal
            heading = np.pi + float(rng.normal(0, 0.5))
            self.add_person(float(rng.uniform(-reach, reach)), z, 0.0, heading)

    def add_person(self, x: float, z: float, ground: float, heading: float) -> None:
        if not self.free(x, z, 0.35):
            return
        self.taken.append((x, z, 0.35))
        walker = choose_walker(self.rng, x=x, z=z, ground=ground, heading=heading)
        self.later(z, lambda: self.figures.append(paint_person(self.canvas, walker)))
        angle = np.arange(8) * np.pi / 4
        base = np.stack((x + 0.22 * np.cos(angle), np.full(8, ground), z + 0.22 * np.sin(angle)), axis=-1)
        self.shadows.under(base, walker.stature)
