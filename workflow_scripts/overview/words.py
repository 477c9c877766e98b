"""Say figures as people say them."""


def duration(seconds: float) -> str:
    """Return seconds in words: 45 s, 12 min, 3 h 20 min, 2 d 4 h."""
    seconds = round(seconds)
    if seconds < 100:
        return f"{seconds} s"

    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"

    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"
