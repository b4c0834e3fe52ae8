"""Numbers and text as a reader sees them."""

import math

from smolt.report.pairing import RATES
from smolt.statistics import FEWEST, Measure, few_values, format_p

LONGEST_TEXT = 3000
_MINUS = "\u2212"
TITLES = {
    "accuracy": "Accuracy",
    "reward": "Mean reward",
    "kl": "KL to reference",
    "length": "Length",
    "stop_rate": "Stopped",
}
UNITS = {"kl": "nats per answer", "length": "tokens", "stop_rate": "ended by itself"}


def shortened(text: str, longest: int = LONGEST_TEXT) -> str:
    """The text, or its beginning and how much more there is."""
    if len(text) <= longest:
        return text
    return f"{text[:longest]} [... {len(text) - longest:,} more characters]"


def title(metric: str) -> str:
    """A metric's name in words; unknown names stay as they are."""
    return TITLES.get(metric, metric)


def number(value: float, decimals: int | None = None) -> str:
    """A number with thousands separators and a true minus; three significant digits unless decimals are given."""
    if decimals is None:
        decimals = 3 if value == 0 else min(6, max(0, 2 - math.floor(math.log10(abs(value)))))
    return f"{value:,.{decimals}f}".replace("-", _MINUS)


def signed(text: str) -> str:
    """A formatted difference with a true minus."""
    return text.replace("-", _MINUS)


def stated(measure: Measure, rate: bool = False) -> str:
    """A measure inside a sentence or a cell: `50.0 % [36.6 to 63.4]`."""
    bounds = "" if measure.low is None or measure.high is None else f" [{range_text(measure, rate)}]"
    return value_text(measure, rate) + bounds


def value_text(measure: Measure, rate: bool = False) -> str:
    """The value: percent where it is a share or `rate` says so, else as many decimals as its interval calls for."""
    if rate or measure.rate:
        return f"{number(100 * measure.value, 1)} %"
    return number(measure.value, _decimals(measure))


def range_text(measure: Measure, rate: bool = False) -> str:
    """The interval in the unit of `value_text`; `no interval` where none can be formed."""
    if measure.low is None or measure.high is None:
        return "no interval"
    scale, decimals = (100, 1) if rate or measure.rate else (1, _decimals(measure))
    return f"{number(scale * measure.low, decimals)} to {number(scale * measure.high, decimals)}"


def method(measure: Measure) -> str:
    """How its interval was made, and from how few values where that makes it rough."""
    rough = few_values([measure]) and "fewer" not in measure.source
    return f"{measure.source}, fewer than {FEWEST}" if rough else measure.source


def axis_ends(metric: str, reach: tuple[float, float]) -> str:
    """The ends of an axis in words."""
    scale, unit = (100.0, " %") if metric in RATES else (1.0, "")
    decimals = max(0, 1 - math.floor(math.log10(scale * (reach[1] - reach[0]))))
    low, high = (number(scale * end, min(6, decimals)) for end in reach)
    return f"{low} to {high}{unit}"


def counted(count: int, noun: str) -> str:
    """A count with its noun."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def p_text(p_value: float | None) -> str:
    """A p-value in a table cell, which is empty where there is none."""
    return "" if p_value is None else format_p(p_value).removeprefix("= ")


def duration(seconds: float) -> str:
    """Seconds as the two largest units: `3 h 12 min`, `4 min 5 s`, `8.2 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min"


def amount(count: float) -> str:
    """A count with a unit of thousand or million: `950`, `41.2 k`, `3.40 M`."""
    if count < 1e4:
        return f"{count:,.0f}"
    return f"{count / 1e3:.1f} k" if count < 1e6 else f"{count / 1e6:,.2f} M"


def memory(size: float) -> str:
    """Bytes as MiB or GiB."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def _decimals(measure: Measure) -> int:
    scale = max(abs(bound) for bound in (measure.value, measure.low, measure.high) if bound is not None)
    return 2 if scale == 0 else min(6, max(0, 2 - math.floor(math.log10(scale))))
