"""Taking a program out of a candidate's text."""

from __future__ import annotations

from selftrain.scoring.extraction import blocks

MAX_CODE = 200_000
"""Characters. Longer code is wrong unread."""
_PYTHON = frozenset({"python", "py", "python3"})


def code_of(text: str) -> str:
    """The last fenced block: of those marked as Python, or else of those without a mark, or else of all. A text without
    a closed block is taken whole. Linear in the text."""
    found = [((info.split() or [""])[0].lower(), inside) for info, inside in blocks(text)]
    for marks in (_PYTHON, frozenset({""}), frozenset(info for info, _ in found)):
        of_kind = [inside for info, inside in found if info in marks]
        if of_kind:
            return of_kind[-1]
    return text


def prepended(before: str, source: str) -> str:
    """The source after what stands before it, on a line of its own."""
    return before + source if not before or before.endswith("\n") else f"{before}\n{source}"


def why_unusable(code: str) -> str | None:
    """Why a text cannot be a program, without reading it as one. A parser is no place for a text of a candidate's in
    the trainer's own process: nesting can take it a very long time, or its stack."""
    if not code.strip():
        return "there is no code"
    if len(code) > MAX_CODE:
        return f"the code has {len(code)} characters, and at most {MAX_CODE} are read"
    if "\0" in code:
        return "the code holds a NUL character, which no Python source may"
    if any("\ud800" <= one <= "\udfff" for one in code):
        return "the code holds half a surrogate pair, which no file can"
    return None
