"""From a Vega-Lite document to inline SVG: rendered by vl-convert, then cut down to what draws.

The SVG is taken apart and written anew from an allow-list of elements and attributes, so whatever a library version
may add (links, styles, event attributes) stays out of the page. Tokens are replaced by the labels they stand for.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from bidsim.machine import CHART_ADDRESSES, check_addresses

_TAGS = frozenset(["svg", "g", "path", "line", "rect", "circle", "text"])
_ATTRIBUTES = frozenset(
    {"width", "height", "viewBox", "transform", "d", "x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "opacity"}
    | {"fill", "fill-opacity", "stroke", "stroke-width", "stroke-opacity", "stroke-dasharray", "stroke-linecap"}
    | {"stroke-linejoin", "stroke-miterlimit", "text-anchor", "font-size", "font-weight"}
)
_NUMBER = re.compile(r"-?\d+\.\d{3,}(?:e-?\d+)?")
_ROUNDED = frozenset(["transform", "d", "x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r"])


def render_svg(
    document: Mapping[str, Any], description: str, labels: Mapping[str, tuple[str, str]] | None = None
) -> str:
    """Inline SVG of a Vega-Lite document, "" where the renderer fails twice.

    labels: token in the picture -> (label, full text as its tooltip). A failed call of vl-convert makes the next one
    fail too, so one retry tells a broken spec from a broken predecessor.
    """
    import vl_convert

    check_addresses(CHART_ADDRESSES, "drawing charts")
    for _ in range(2):
        try:
            text = vl_convert.vegalite_to_svg(dict(document), allowed_base_urls=[])
        except ValueError:
            continue
        return _written(ET.fromstring(text), labels or {}, description)
    return ""


def _written(root: ET.Element, labels: Mapping[str, tuple[str, str]], description: str) -> str:
    box = root.get("viewBox", "")
    inside = "".join(_element(child, labels) for child in root)
    size = f"width={quoteattr(root.get('width', ''))} height={quoteattr(root.get('height', ''))}"
    return f'<svg viewBox={quoteattr(box)} {size} role="img" aria-label={quoteattr(description)}>{inside}</svg>'


def _element(node: ET.Element, labels: Mapping[str, tuple[str, str]]) -> str:
    tag = node.tag.rpartition("}")[2]
    if tag not in _TAGS or node.get("display") == "none" or node.get("opacity") == "0":
        return ""
    if tag == "path" and (not node.get("d") or not (node.get("stroke") or node.get("fill"))):
        return ""
    attributes = "".join(
        f" {name}={quoteattr(_rounded(name, value))}"
        for name, value in node.items()
        if name in _ATTRIBUTES and (name, value) not in _DEFAULTS
    )
    if tag == "text":
        label, full = labels.get(node.text or "", (node.text or "", ""))
        title = f"<title>{escape(full)}</title>" if full and full != label else ""
        return f"<text{attributes}>{title}{escape(label)}</text>" if label else ""
    inside = "".join(_element(child, labels) for child in node)
    if tag == "g":
        return f"<g{attributes}>{inside}</g>" if attributes and inside else inside
    return f"<{tag}{attributes}/>"


_DEFAULTS = {
    ("transform", "translate(0,0)"),
    ("opacity", "1"),
    ("stroke-width", "1"),
    ("x2", "0"),
    ("y2", "0"),
}


def _rounded(name: str, value: str) -> str:
    if name not in _ROUNDED:
        return value
    return _NUMBER.sub(lambda m: f"{float(m.group()):.2f}".rstrip("0").rstrip("."), value)
