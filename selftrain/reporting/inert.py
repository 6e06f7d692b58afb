"""Text from prompts, models, files and error messages, made harmless for a terminal.

Escape sequences could recolour or rewrite what was printed before, bidirectional controls could show text in another
order than it has, lone surrogates cannot be encoded. Markup needs no escaping: nothing here is parsed as markup.
"""

from __future__ import annotations

import re
import unicodedata

ESCAPE_SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor movements
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"  # OSC, DCS and other strings
    r"|\x1b[ -/]*[0-~]"
)
DIRECTION_CONTROLS = dict.fromkeys([0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)])


def inert_lines(text: str) -> str:
    """The text without escape sequences and control characters; line breaks stay."""
    text = ESCAPE_SEQUENCE.sub("", text.replace("\r\n", "\n").replace("\t", " ")).translate(DIRECTION_CONTROLS)
    return "".join("\ufffd" if _is_harmful(character) else character for character in text)


def inert(text: str) -> str:
    """The same on one line: runs of line breaks and spaces become one space."""
    return " ".join(inert_lines(text).split())


def _is_harmful(character: str) -> bool:
    return character != "\n" and unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
