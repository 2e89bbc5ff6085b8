"""How things are said on the terminal."""


def duration(seconds: float) -> str:
    """A time as people say it: ``48 s``, ``5 min 44 s``, ``2 h 5 min``."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
