"""Colours that survive colour blindness: Okabe–Ito for names, viridis for amounts.

Okabe and Ito, *Color Universal Design* (2008); viridis by van der Walt and Smith (2015), here as
eleven anchors with linear interpolation, which is closer than a display can show.
"""

import numpy as np

NEUTRAL = "#8b979c"  # the negative control: the ground the others are seen against
POSITIVE = "#d55e00"
OTHERS = ("#0072b2", "#009e73", "#e69f00", "#cc79a7", "#56b4e9", "#b8a600", "#7a5195", "#6b4c2a")

_VIRIDIS = (
    *("440154", "482475", "414487", "355f8d", "2a788e", "21918c"),
    *("22a884", "44bf70", "7ad151", "bddf26", "fde725"),
)


def label_colours(
    labels: list[str], negative: str | None, positive: str | None
) -> tuple[list[str], list[str]]:
    """Labels in reading order (negative, positive, the rest by name) and a colour for each.

    The same label has the same colour in every chart of a report; past eight other labels the
    colours repeat, and the charts then tell them apart by position and tooltip.
    """
    first = [x for x in (negative, positive) if x in labels]
    rest = sorted(set(labels) - set(first))
    fixed = {negative: NEUTRAL, positive: POSITIVE}
    return first + rest, [fixed[x] for x in first] + [
        OTHERS[i % len(OTHERS)] for i in range(len(rest))
    ]


def viridis(values: np.ndarray) -> np.ndarray:
    """Colours (…, 3), float32 in [0, 1], of ``values`` in [0, 1] (clipped)."""
    anchors = np.array([rgb(a) for a in _VIRIDIS], np.float32)
    at = np.linspace(0, 1, len(anchors))
    values = np.clip(values, 0, 1)
    return np.stack(
        [np.interp(values, at, anchors[:, i]).astype(np.float32) for i in range(3)], axis=-1
    )


def rgb(hexadecimal: str) -> np.ndarray:
    """``"0072b2"`` or ``"#0072b2"`` as three floats in [0, 1]."""
    text = hexadecimal.removeprefix("#")
    return np.array([int(text[i : i + 2], 16) / 255 for i in (0, 2, 4)], np.float32)
