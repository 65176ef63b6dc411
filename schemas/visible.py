"""Text of others (ids, titles, feature values, a server's words) as a terminal or a log may show it."""

_KEPT = "\n\t"
_C0 = {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in _KEPT}  # Unicode has pictures of them
_OTHERS = [
    *range(0x80, 0xA0),  # the C1 controls, which terminals obey as they do escape sequences
    *(0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)),  # those that turn the direction of text
    *(0x2028, 0x2029),  # separators of lines
    *range(0xD800, 0xE000),  # surrogates, which no terminal can be sent
]
_PICTURES = {**_C0, 0x7F: "\N{SYMBOL FOR DELETE}", **dict.fromkeys(_OTHERS, "\N{REPLACEMENT CHARACTER}")}


def visible(text: str) -> str:
    """The text with a visible sign in the place of every control character but line feeds and tabs."""
    return text.translate(_PICTURES)
