"""Counters of the server, in the text format of Prometheus (version 0.0.4)."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SIZES = (1, 2, 4, 8, 16, 32)
TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Histogram:
    """How many values are at most as large as each of `edges`, by label."""

    def __init__(self, edges: tuple[float, ...]) -> None:
        self.edges = edges
        self.counts: dict[str, list[int]] = defaultdict(lambda: [0] * (len(edges) + 1))
        self.sums: dict[str, float] = defaultdict(float)

    def add(self, label: str, value: float) -> None:
        self.counts[label][bisect_left(self.edges, value)] += 1
        self.sums[label] += value

    def lines(self, name: str) -> Iterator[str]:
        for label, counts in self.counts.items():
            total = 0
            for edge, count in zip((*self.edges, None), counts, strict=True):
                total += count
                end = "+Inf" if edge is None else f"{edge:g}"
                yield f'{name}_bucket{{model="{label}",le="{end}"}} {total}'
            yield f'{name}_sum{{model="{label}"}} {self.sums[label]:.6f}'
            yield f'{name}_count{{model="{label}"}} {total}'


class Metrics:
    """What was asked and answered. It is written by the event loop's thread alone.

    Labels are names of models, whose letters are checked, and numbers, so nothing from outside stands in the text.
    """

    def __init__(self) -> None:
        self.requests: dict[tuple[str, int], int] = defaultdict(int)
        self.seconds, self.network, self.batches = Histogram(SECONDS), Histogram(SECONDS), Histogram(SIZES)
        self.gauges: dict[str, tuple[str, Callable[[], dict[str, float]]]] = {}
        """By name what it is, and what gives its values by model; of '' there is no model."""

    def text(self) -> str:
        lines = [
            "# HELP dvsn_requests_total Requests for predictions, by model and status.",
            "# TYPE dvsn_requests_total counter",
        ]
        for (model, status), count in sorted(self.requests.items()):
            lines.append(f'dvsn_requests_total{{model="{model}",status="{status}"}} {count}')
        for name, help_text, histogram in (
            ("dvsn_request_seconds", "From a request's first byte to its answer, of answered ones.", self.seconds),
            ("dvsn_network_seconds", "A batch in the network.", self.network),
            ("dvsn_batch_pictures", "Pictures in a batch.", self.batches),
        ):  # fmt: skip
            lines += [f"# HELP {name} {help_text}", f"# TYPE {name} histogram", *histogram.lines(name)]
        for name, (help_text, read) in self.gauges.items():
            lines += [f"# HELP {name} {help_text}", f"# TYPE {name} gauge"]
            for model, value in read().items():
                label = f'{{model="{model}"}}' if model else ""
                lines.append(f"{name}{label} {value:g}")
        return "\n".join(lines) + "\n"

    def summary(self) -> str:
        """Such as `12 answered, 1 refused`."""
        answered = sum(count for (_, status), count in self.requests.items() if status == 200)
        refused = sum(self.requests.values()) - answered
        return f"{answered} answered, {refused} refused"
