"""One metric's curve as a picture in the page: lines in the page's own colours, no script, numbers at its ends."""

from markupsafe import Markup

from smolt.report.inert import visible
from smolt.report.pictures.curves import Curve, Points, running_mean
from smolt.report.wording import number

WIDE, HIGH, EDGE = 320.0, 120.0, 6.0


FIGURE = Markup(
    '<figure class="curve"><figcaption><b>{title}</b><span class="latest">{latest}</span></figcaption>'
    '<svg viewBox="0 0 {wide} {high}" role="img" aria-label="{title}, now {latest}" preserveAspectRatio="none">'
    '<polyline class="thin" points="{thin}"/><polyline class="thick" points="{thick}"/>{dots}</svg>'
    '<p class="ends"><span>update {left:.0f}</span><span>{least} to {most}</span><span>{right:.0f}</span></p>'
    '<p class="good">{good}</p></figure>'
)


def curve_figure(curve: Curve) -> Markup:
    """Title, latest value, picture (thick: the running mean; dots: held-out data), and what good looks like."""
    values = [value for _, value in curve.points]
    reach = _reach([*curve.points, *curve.held_out])
    smooth = list(zip((step for step, _ in curve.points), running_mean(values), strict=True))
    dots = [(f"{x:.1f}", f"{y:.1f}") for x, y in _placed(curve.held_out, reach)]
    left, right, least, most = reach
    return FIGURE.format(
        title=visible(curve.title),
        latest=number(values[-1]),
        wide=f"{WIDE:g}",
        high=f"{HIGH:g}",
        thin=_path(curve.points, reach),
        thick=_path(smooth, reach),
        dots=Markup("").join(Markup('<circle cx="{}" cy="{}" r="2.5"/>').format(*dot) for dot in dots),
        left=left,
        right=right,
        least=number(least),
        most=number(most),
        good=curve.good,
    )


def _reach(points: Points) -> tuple[float, float, float, float]:
    """Left, right, low, high of all points."""
    steps, values = [step for step, _ in points], [value for _, value in points]
    return min(steps), max(steps), min(values), max(values)


def _placed(points: Points, reach: tuple[float, float, float, float]) -> Points:
    """Where points stand in the picture; a curve without spread lies in its middle."""
    left, right, low, high = reach
    wide, tall = (WIDE - 2 * EDGE) / ((right - left) or 1.0), (HIGH - 2 * EDGE) / ((high - low) or 1.0)
    middle = HIGH / 2 if high == low else None
    return [
        (EDGE + (step - left) * wide, middle if middle is not None else HIGH - EDGE - (value - low) * tall)
        for step, value in points
    ]


def _path(points: Points, reach: tuple[float, float, float, float]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in _placed(points, reach))
