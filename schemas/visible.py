"""Makes foreign text (ids, titles, feature values, a server's messages) safe to show in a terminal or a log."""

_KEPT = "\n\t"
# Unicode's pictures of control codes.
_C0 = {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in _KEPT}
_OTHERS = [
    *range(0x80, 0xA0),  # the C1 controls, which terminals obey like escape sequences
    *(0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)),  # changes of the direction of text
    *(0x2028, 0x2029),  # line separators
    *range(0xD800, 0xE000),  # surrogates, which cannot be encoded
]
_PICTURES = {**_C0, 0x7F: "\N{SYMBOL FOR DELETE}", **dict.fromkeys(_OTHERS, "\N{REPLACEMENT CHARACTER}")}


def visible(text: str) -> str:
    """Replace every control character except line feeds and tabs by a visible sign."""
    return text.translate(_PICTURES)
