"""What a failure of others' code is told by."""


def first_sentence(text: str) -> str:
    """Return the first line of a message, with a full stop."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    first = lines[0] if lines else "no reason is given."
    return first if first.endswith(".") else f"{first}."
