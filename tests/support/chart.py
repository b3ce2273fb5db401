"""The values of a chart of the report, read back from its SVG by its own ticks."""

import re
from dataclasses import dataclass

POINT = r"(-?[\d.]+) (-?[\d.]+)"


@dataclass(frozen=True)
class Chart:
    """One chart; places are in the values of its axes."""

    svg: str

    @property
    def y_labels(self):
        """The labels of the vertical axis, from below."""
        return [text for _, text in sorted(self._ticks("end"), reverse=True)]

    def line(self, colour):
        """Return the points of the line of a colour."""
        for path, style in re.findall(r'<path d="([^"]*)" clip-path="[^"]*" style="([^"]*)"', self.svg):
            if f"stroke: var(--{colour}); stroke-width: 2" in style:
                return [self._place(x, y) for x, y in re.findall(POINT, path)]
        return None

    def marks(self, colour):
        """Return the places of the diamonds of a colour within the axes."""
        uses = re.findall(
            rf'clip-path="[^"]*">\s*<use xlink:href="[^"]*" x="([\d.]+)" y="([\d.]+)" style="fill: var\(--{colour}\); '
            rf"stroke: var\(--{colour}\); stroke-linejoin: miter",
            self.svg,
        )
        return [self._place(x, y) for x, y in uses]

    def band(self):
        """Return the lower and the upper end of the expected band, drawn as an area or as a line."""
        for path, style in re.findall(r'<path d="([^"]*)" clip-path="[^"]*" style="([^"]*)"', self.svg):
            if "var(--green)" in style:
                heights = [self._place(x, y)[1] for x, y in re.findall(POINT, path)]
                return min(heights), max(heights)
        return None

    def cuts(self):
        """Return where attempts were cut off."""
        paths = re.findall(r'<path d="([^"]*)" clip-path="[^"]*" style="[^"]*stroke: var\(--red\)', self.svg)
        return [self._place(*re.findall(POINT, path)[0])[0] for path in paths]

    def _place(self, x, y):
        return self._value(float(x), "middle"), self._value(float(y), "end")

    def _value(self, at, anchor):
        ticks = sorted(self._ticks(anchor))
        (first, low), (last, high) = ((place, _number(text)) for place, text in (ticks[0], ticks[-1]))
        return round(low + (at - first) * (high - low) / (last - first), 3)

    def _ticks(self, anchor):
        """Return place and label of each tick of the axis whose labels are anchored so."""
        found = re.findall(
            rf'<use xlink:href="[^"]*" x="([\d.]+)" y="([\d.]+)"[^>]*/>\s*</g>\s*</g>\s*<g>\s*'
            rf'<text style="[^"]*text-anchor: {anchor};[^"]*"[^>]*>([^<]*)</text>',
            self.svg,
        )
        return [(float(x if anchor == "middle" else y), text) for x, y, text in found]


def _number(text):
    return float(text.removesuffix(" %")) / 100 if text.endswith(" %") else float(text)
