"""What libraries raise, in a sentence of ours."""

_MOST_CHARACTERS = 500


def one_line(error: BaseException) -> str:
    """Its type and what it says, which may be pages."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:_MOST_CHARACTERS]}"
