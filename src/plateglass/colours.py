"""How viewers and reports paint channels, where the settings do not say."""

# Bright enough on black; a dye's usual colour where the channel's name tells it, else in turn.
_COLOURS = {
    "dna": "3E8EFF", "dapi": "3E8EFF", "hoechst": "3E8EFF", "nuc": "3E8EFF", "draq": "3E8EFF",
    "gfp": "00E05A", "fitc": "00E05A", "er": "00E05A", "488": "00E05A",
    "rna": "FFD400", "yfp": "FFD400", "agp": "FF8C00", "actin": "FF8C00",
    "mito": "FF3B3B", "rfp": "FF3B3B", "tritc": "FF3B3B", "568": "FF8C00", "cy5": "FF4FD8",
    "brightfield": "FFFFFF", "phase": "FFFFFF",
}  # fmt: skip
_IN_TURN = ("00E05A", "FF4FD8", "FFD400", "3EE0FF", "FF8C00", "FF3B3B", "FFFFFF")


def colours_of(channels: list[str]) -> dict[str, str]:
    """A colour (RRGGBB) for each channel, by its name or in turn, each once while they last."""
    chosen: dict[str, str] = {}
    for channel in channels:
        known = [c for word, c in _COLOURS.items() if word in channel.lower()]
        fresh = [c for c in (*known, *_IN_TURN) if c not in chosen.values()]
        chosen[channel] = (fresh or [*known, "FFFFFF"])[0]
    return chosen
