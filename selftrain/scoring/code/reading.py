"""Taking a program out of a candidate's text."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Collection

from selftrain.scoring.code.names import parsed
from selftrain.scoring.extraction import blocks

MAX_CODE = 200_000
"""Characters. Longer code is wrong unread."""
_DEFINED = re.compile(r"^[ \t]*(?:async[ ]+def|def|class)[ ]+(\w+)|^(\w+)[ ]*=", re.MULTILINE)
_OPENING = re.compile(r"^[ ]{0,3}(?:`{3,}|~{3,})(?P<mark>[^`\n]*)(?:\n|\Z)", re.MULTILINE)
_STATEMENT = re.compile(r"^(?:def |class |import |from \w|@\w|print\(|\w+ *=)", re.MULTILINE)
_PYTHON = frozenset({"python", "py", "python3"})


def code_of(text: str, names: Collection[str] = (), *, is_whole: bool = False) -> str:
    """The last fenced block: of those marked as Python, or else of those without a mark, or else of all; the last that
    defines one of `names` where one does, since examples of use follow a solution. A text without a closed block is
    what follows an opening fence, or what stands before a closing one, or else taken whole. `is_whole`: nothing stands
    before the code, so that a block which is indented in full stood in a list. Linear in the text."""
    found = [((info.split() or [""])[0].lower(), inside) for info, inside in blocks(text)]
    for marks in (_PYTHON, frozenset({""}), frozenset(info for info, _ in found)):
        of_kind = [inside for info, inside in found if info in marks]
        if of_kind:
            last = ([one for one in of_kind if _defines(one, names)] or of_kind)[-1]
            return textwrap.dedent(last) if is_whole and last[:1] in (" ", "\t") else last
    return _beside_fence(text)


def _defines(source: str, names: Collection[str]) -> bool:
    return any((found[1] or found[2]) in names for found in _DEFINED.finditer(source))


def _beside_fence(text: str) -> str:
    """Of a text that was cut before its block was closed, or that goes on in a block which its prompt opened."""
    fence = _OPENING.search(text)
    if fence is None:
        return text
    before = text[: fence.start()]
    return before if not fence["mark"] and _STATEMENT.search(before) else text[fence.end() :]


def prepended(before: str, source: str) -> str:
    """The source after what stands before it, on a line of its own."""
    return before + source if not before or before.endswith("\n") else f"{before}\n{source}"


def defines_whole(source: str, names: Collection[str]) -> bool:
    """Whether one of the names is defined at the left margin, so that the source may stand without what a data set puts
    before it. Seen without a parser: the source may be a candidate's."""
    return any((found[1] or found[2]) in names and not found[0][0].isspace() for found in _DEFINED.finditer(source))


def solution(before: str, source: str, names: Collection[str]) -> str:
    """A data set's own solution after what stands before it; alone where it defines one of the names itself and the
    two together are no Python."""
    both = prepended(before, source)
    if not (before and defines_whole(source, names)):
        return both
    try:
        parsed(both, "")
    except ValueError:
        return source
    return both


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
