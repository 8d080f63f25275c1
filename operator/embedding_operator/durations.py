"""Durations as Kubernetes shows them; pure."""

_UNITS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


def duration(seconds: float) -> str:
    """Two units at most, such as ``45s``, ``3m20s``, ``1h`` or ``2d4h``."""
    left = max(1, round(seconds))
    parts: list[str] = []
    for unit, size in _UNITS:
        count, rest = divmod(left, size)
        if count or parts:
            parts.append(f"{count}{unit}" if count else "")
            left = rest
        if len(parts) == 2:
            break
    return "".join(parts)
