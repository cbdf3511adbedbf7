"""Rounds, medians, spreads and the one table."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field


@dataclass
class Sample:
    """One measured slice."""

    rate: float
    p50_ms: float
    p99_ms: float
    cpu_us: float = 0.0


@dataclass
class Series:
    """The slices of one thing over all rounds."""

    samples: list[Sample] = field(default_factory=list[Sample])

    def median(self, of: Callable[[Sample], float]) -> float:
        """The median over the rounds."""
        return statistics.median(of(sample) for sample in self.samples)

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.median(lambda s: s.rate)


@dataclass(frozen=True)
class Row:
    """One line of the table. `aim` is what the figure must reach (`at_least`) or stay under."""

    name: str
    figure: str
    ratio: float | None = None
    by_cpu: float | None = None
    spread: tuple[float, float] | None = None
    against: str = ""
    aim: float | None = None
    at_least: bool = True
    measured: float | None = None

    @property
    def is_met(self) -> bool | None:
        """Whether the aim is reached; None where there is none."""
        value = self.measured if self.measured is not None else self.ratio
        if self.aim is None or value is None:
            return None
        return value >= self.aim if self.at_least else value <= self.aim


def ratio(ours: Series, theirs: Series) -> tuple[float, tuple[float, float]]:
    """Median, smallest and largest of the rounds' own ratios: both sides of each were measured side by side."""
    ratios = [a.rate / b.rate for a, b in zip(ours.samples, theirs.samples, strict=True)]
    return statistics.median(ratios), (min(ratios), max(ratios))


def ratio_by_cpu(ours: Series, theirs: Series) -> float:
    """The same by processor time per answer, which does not mind what else the machine does."""
    pairs = zip(ours.samples, theirs.samples, strict=True)
    return statistics.median(b.cpu_us / a.cpu_us if a.cpu_us else float("nan") for a, b in pairs)


def figure(series: Series) -> str:
    """Rate and latencies in one cell."""
    p50, p99 = series.median(lambda s: s.p50_ms), series.median(lambda s: s.p99_ms)
    cpu = series.median(lambda s: s.cpu_us)
    return f"{series.rate:,.0f}/s  p50 {p50:.2f} ms  p99 {p99:.2f} ms  cpu {cpu:,.0f} us"


def table(rows: Sequence[Row]) -> str:
    """The rows in columns."""
    head = ["what", "figure", "ratio", "spread", "by cpu", "against", "aim", ""]
    lines = [head, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    texts = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    return "\n".join([texts[0], "-" * len(texts[0]), *texts[1:]])


def _cells(row: Row) -> list[str]:
    verdict = {None: "", True: "met", False: "NOT MET"}[row.is_met]
    return [
        row.name,
        row.figure,
        f"{row.ratio:.2f}" if row.ratio is not None else "",
        f"{row.spread[0]:.2f}-{row.spread[1]:.2f}" if row.spread else "",
        f"{row.by_cpu:.2f}" if row.by_cpu is not None else "",
        row.against,
        f"{'>=' if row.at_least else '<='} {row.aim:g}" if row.aim is not None else "",
        verdict,
    ]
