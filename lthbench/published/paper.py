"""What a file of published numbers holds, typed and checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from lthbench.base.errors import UserError, near
from lthbench.base.settings import Settings

LEVELS = ("verified", "plot", "secondary", "unverified")
SPREADS = ("std", "stderr", "ci95", "minmax")
STATISTICS = ("mean", "median", "best", "single")
RELATIONS = (">", ">=", "~")
ACCURACIES = ("test_accuracy", "top1", "accuracy")
NUMBERS = ("value", "spread", "n", "mean", "median", *(ENDS := ("min", "low", "value_min", "max", "high", "value_max")))
WORDED = ("text", "mixed")  # units of tables that hold words as well: settings, definitions

Row = Mapping[str, Any]


def alike(a: float, b: float, factor: float = 1.02) -> bool:
    """Whether two sparsities are the same but for rounding: the shares that stay differ by less than `factor`."""
    if max(a, b) >= 1:
        return a == b
    return max(1 - a, 1 - b) < factor * min(1 - a, 1 - b)


def is_at(where: Row, key: str, value: Any) -> bool:
    """Whether a place has this value for a word; what it does not tell is not held against it. A list: either name."""
    own = where.get(key, value)
    return value in own if isinstance(own, (list, tuple)) else bool(own == value)


def one_of(value: str | None, known: tuple[str, ...], where: str) -> None:
    """Raise a UserError unless `value` is None or known."""
    if value is not None and value not in known:
        raise UserError(f"{where}: unknown '{value}'{near(value, known)}")


@dataclass(frozen=True)
class Evidence(Settings):
    """How well a number is known, and from where."""

    level: str
    sources: tuple[str, ...]
    note: str = ""

    def __post_init__(self) -> None:
        one_of(self.level, LEVELS, "evidence.level")


@dataclass(frozen=True)
class Published:
    """One published number. `value` is in percent where it is an accuracy (errors are turned round).

    `sd` is the standard deviation over runs that the printed spread stands for (None: not known), `low` and `high`
    the printed ends where it is a range, `rounding` the variance that printing and reading add.
    """

    value: float
    sd: float | None
    spread: str | None
    low: float | None
    high: float | None
    n: int | None
    statistic: str | None
    evidence: str
    source: str
    rounding: float = 0.0


@dataclass(frozen=True)
class Trials(Settings):
    """Rows kept in a CSV, single runs side by side: `scores` name their columns, `codes` say what numbers mean."""

    file: str
    scores: tuple[str, ...]
    codes: dict[str, Any]


@dataclass(frozen=True)
class Table(Settings):
    """A table of a paper. `rows` hold one value a column; see the module's docstring for levels of evidence."""

    id: str
    place: str
    what: str
    metric: str
    unit: str
    statistic: str | None
    n: int | None
    spread: str | None
    sparsity_of: str | None
    setting: dict[str, Any]
    not_stated: tuple[str, ...]
    evidence: Evidence
    columns: tuple[str, ...]
    rows: Any
    trials: Trials | None = None

    def __post_init__(self) -> None:
        one_of(self.statistic, STATISTICS, f"{self.id}.statistic")
        one_of(self.spread, SPREADS, f"{self.id}.spread")
        if not isinstance(self.rows, (list, tuple)):
            raise UserError(f"{self.id}.rows: not a list of rows")
        numbers = [i for i, c in enumerate(self.columns) if c in NUMBERS and self.unit not in WORDED]
        for number, row in enumerate(self.rows, 1):
            if not isinstance(row, (list, tuple)) or len(row) != len(self.columns):
                raise UserError(f"{self.id}: row {number} does not have the {len(self.columns)} columns")
            for i in numbers:
                if row[i] is not None and not (type(row[i]) in (int, float) and math.isfinite(row[i])):
                    raise UserError(f"{self.id}: row {number}, {self.columns[i]}: {row[i]!r} is not a number")

    @property
    def quantity(self) -> str | None:
        """What results may be compared with: `accuracy`, `early_stop_iteration`, `compression`, or None."""
        if self.metric in (*ACCURACIES, "test_error") and self.unit.split()[0] == "percent":
            return "accuracy"
        return {"iterations": "early_stop_iteration", "compression": "compression"}.get(self.metric)

    @cached_property
    def cells(self) -> list[Row]:
        """The rows that hold a number, by column."""
        if "value" not in self.columns:
            return []
        rows = [dict(zip(self.columns, row)) for row in self.rows]
        return [row for row in rows if row["value"] is not None]

    def find(self, where: Row, sparsity: float) -> list[Row]:
        """The cells at a place: those whose columns agree with `where` on all that both name."""
        return [c for c in self.cells if self._agrees(c, where, sparsity)]

    def _agrees(self, cell: Row, where: Row, sparsity: float) -> bool:
        own = cell.get("sparsity", sparsity)
        if not isinstance(own, (int, float)) or not alike(own, sparsity):
            return False
        return all(is_at(where, key, cell[key]) for key in where if key in cell)

    def published(self, cell: Row) -> Published:
        """A cell as a number to compare with."""
        error = self.metric == "test_error"
        value = 100 - cell["value"] if error else float(cell["value"])
        low, high = self._ends(cell, error)
        n = cell.get("n", self.n)
        return Published(
            value=value,
            sd=self._sd(cell, low, high, n),
            spread=self.spread,
            low=low,
            high=high,
            n=n,
            statistic=self.statistic,
            evidence=self.evidence.level,
            source=f"{self.place} ({self.id})",
            rounding=self._digit**2 / 12 + (self._digit**2 if self.evidence.level == "plot" else 0.0),
        )

    def _ends(self, cell: Row, error: bool) -> tuple[float | None, float | None]:
        lows, highs = ([cell[k] for k in ends if cell.get(k) is not None] for ends in (ENDS[:3], ENDS[3:]))
        low, high = (lows[0] if lows else None), (highs[0] if highs else None)
        if low is None and self.spread == "minmax" and cell.get("spread") is not None:  # printed as value ± half
            low, high = cell["value"] - cell["spread"], cell["value"] + cell["spread"]
        if error and low is not None and high is not None:
            low, high = 100 - high, 100 - low
        return low, high

    def _sd(self, cell: Row, low: float | None, high: float | None, n: int | None) -> float | None:
        """The printed spread as a standard deviation of single runs (None: no spread, or not known of what)."""
        printed = cell.get("spread")
        if self.spread == "minmax":
            width = expected_range(n)
            return None if low is None or high is None or width is None else (high - low) / width
        if printed is None:
            return None
        if self.spread == "std":
            return float(printed)
        if n is None or n < 2:
            return None
        if self.spread == "stderr":
            return float(printed) * math.sqrt(n)
        if self.spread == "ci95":
            from scipy.stats import t

            return float(printed) * math.sqrt(n) / float(t.ppf(0.975, n - 1))
        return None

    @cached_property
    def _digit(self) -> float:
        """The last printed digit: the finest that a value of the table shows."""
        places = (f"{cell['value']!r}".partition(".")[2].rstrip("0") for cell in self.cells)
        return 10.0 ** -max(map(len, places), default=0)


@lru_cache(maxsize=64)
def expected_range(n: int | None) -> float | None:
    """Expected range of n normal draws in standard deviations (None below two)."""
    if n is None or n < 2:
        return None
    from scipy.integrate import quad
    from scipy.stats import norm

    return float(quad(lambda x: 1 - norm.cdf(x) ** n - norm.sf(x) ** n, -9, 9)[0])


@dataclass(frozen=True)
class Claim(Settings):
    """A paper's directional statement: `left` `relation` `right` at each point of `when`; see `report.claims`.

    `share` of the cases is what the statement is about; `margin` is in the quantity's unit (percent for accuracies).
    """

    id: str
    place: str
    statement: str
    left: dict[str, Any]
    relation: str
    right: dict[str, Any]
    when: Any
    margin: float
    evidence: Evidence
    share: float = 1.0

    def __post_init__(self) -> None:
        one_of(self.relation, RELATIONS, f"{self.id}.relation")
        points = self.when if isinstance(self.when, (list, tuple)) else [self.when]
        if not all(isinstance(point, Mapping) for point in points):
            raise UserError(f"{self.id}.when: not a mapping or a list of mappings")
        if not 0 < self.share <= 1:
            raise UserError(f"{self.id}.share: {self.share} is not a share")
        if self.margin < 0:
            raise UserError(f"{self.id}.margin: {self.margin} is negative")


@dataclass(frozen=True)
class Paper(Settings):
    """A file: what was published where, its tables and claims; `facts` is for people."""

    paper: str
    title: str
    authors: tuple[str, ...]
    venue: str | None
    year: int | None
    arxiv: str | None
    code: str | None
    tables: tuple[Table, ...]
    claims: tuple[Claim, ...]
    notes: tuple[str, ...] = ()
    facts: dict[str, Any] | None = None

    def table(self, ident: str) -> Table:
        """A table by its id."""
        return self._by_id(self.tables, ident, "table")

    def claim(self, ident: str) -> Claim:
        """A claim by its id."""
        return self._by_id(self.claims, ident, "claim")

    def _by_id(self, parts: tuple[Any, ...], ident: str, what: str) -> Any:
        for part in parts:
            if part.id == ident:
                return part
        raise UserError(f"paper {self.paper} has no {what} '{ident}'{near(ident, [part.id for part in parts])}")

    @property
    def reference(self) -> str:
        """Who, where, when."""
        who = self.authors[0].split()[-1] + (" et al." if len(self.authors) > 2 else "") if self.authors else self.paper
        if len(self.authors) == 2:
            who += f" and {self.authors[1].split()[-1]}"
        return f"{who} {self.year}" if self.year else who
