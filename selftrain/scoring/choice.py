"""Multiple choice: which letter an answer gives, and whether it is the one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Any

from selftrain.scoring import Verdict

_LETTERS = tuple(ascii_uppercase)
_WRAPPED = re.compile(r"(?:\*\*|\$|`)(.*)(?:\*\*|\$|`)|\\(?:text|textbf|mathrm|mathbf)\{([^{}]*)\}", re.DOTALL)
_LABELLED = re.compile(r"\(\s*(?P<inside>\w{1,2})\s*\)(?P<rest>.*)|(?P<bare>\w{1,2})(?:[).:](?P<more>.*))?", re.DOTALL)
_BOLD_LABEL = re.compile(r"\A\*\*(\(?\w{1,2}[).:]?)\*\*(?=.)", re.DOTALL)  # `**B.** its text`
# Another letter in what follows a letter, but for the words `a` and `I` before a word.
_ANOTHER = re.compile(r"(?<![\w'’])(?!(?:[aA]|I)\s+[a-z]{2})[A-Za-z](?![\w'’])|\b(?:or|and|nor|not)\s+[A-Za-z]\b")


def choice(
    text: str, reference: str | None, metadata: Mapping[str, Any], *, choices: str | list[str] | None = None
) -> Verdict:
    """Correct when the text gives the letter of the right choice, and no other: `B`, `(B)`, `B.`, `B) its text`, or
    its text alone, where only one choice has it. `choices` names the column with the list of choices (or with
    {text: [...], label: [...]}, or a list of {text, label}), or lists the columns with one choice each, which are
    called by what their names end with (`option_a`, `B`, `choice1`); without it, what follows `B)` may hold no other
    single letter. The reference is the letter and, with `choices`, may be the right one's text, or its index from 0."""
    options = _options(metadata, choices)
    wanted = _of_reference(reference, options)
    given, why = _given(text, options)
    if given is None:
        return Verdict(0.0, None, why)
    if given == wanted:
        return Verdict(1.0, given, f"{given} is the right choice")
    return Verdict(0.0, given, f"the answer is {given}, the right choice {wanted}")


def check(reference: str | None, metadata: Mapping[str, Any], *, choices: str | list[str] | None = None) -> None:
    """Raise ValueError where the reference does not say which choice is right."""
    right(reference, metadata, choices)


def right(reference: str | None, metadata: Mapping[str, Any], choices: str | list[str] | None) -> str:
    """The label of the right choice. Raises ValueError where the reference does not say which that is."""
    return _of_reference(reference, _options(metadata, choices))


def wrong(reference: str | None, metadata: Mapping[str, Any], choices: str | list[str] | None) -> tuple[str, ...]:
    """The labels of the wrong choices, and their texts where those are not the right one's too; without `choices` the
    letters before and after the right one. Raises ValueError as `right` does."""
    options = _options(metadata, choices)
    label = _of_reference(reference, options)
    if options is None:
        place = _LETTERS.index(label)
        return _LETTERS[(place + 1) % len(_LETTERS)], _LETTERS[place - 1]
    others = [one for one in options if one != label and _folded(options[one]) != _folded(options[label])]
    texts = [options[one] for one in others if _label(options[one]) is None and options[one] not in options]
    return (*others, *texts)


def labels_of(columns: Sequence[str]) -> list[str]:
    """What columns with one choice each are called: the one character that their names differ in at the end, in
    capitals (`option_a`: A, `choice1`: 1); A, B, ... where they differ otherwise."""
    ends = [name[-1:].upper() for name in columns]
    is_label = len({name[:-1] for name in columns}) == 1 and len(set(ends)) == len(ends) and "".join(ends).isalnum()
    return ends if is_label else list(_LETTERS[: len(columns)])


def _options(metadata: Mapping[str, Any], choices: str | list[str] | None) -> dict[str, str] | None:
    """The text of each choice by its label; None where the choices are not known."""
    if choices is None:
        return None
    if isinstance(choices, list):
        if missing := [name for name in choices if metadata.get(name) is None]:
            raise ValueError(f"there is no choice in the column {missing[0]!r}; there are: {', '.join(metadata)}")
        return dict(zip(labels_of(choices), (str(metadata[name]) for name in choices), strict=True))
    if choices not in metadata:
        raise ValueError(f"there is no column {choices!r} of choices; there are: {', '.join(metadata) or 'none'}")
    column = metadata[choices]
    if isinstance(column, list) and all(isinstance(one, Mapping) and {"text", "label"} <= one.keys() for one in column):
        column = {name: [one[name] for one in column] for name in ("text", "label")}
    texts = column.get("text") if isinstance(column, Mapping) else column
    if not isinstance(texts, Sequence) or isinstance(texts, str) or not 0 < len(texts) <= len(_LETTERS):
        raise ValueError(f"column {choices!r} must hold a list of 1 to {len(_LETTERS)} choices, not {column!r:.80}")
    labels = column.get("label") if isinstance(column, Mapping) else None
    named = [str(one).strip().upper() for one in labels] if labels else list(_LETTERS[: len(texts)])
    if len(set(named)) != len(texts):
        raise ValueError(f"column {choices!r} has {len(texts)} choices and the labels {named}")
    return dict(zip(named, (str(one) for one in texts), strict=True))


def _of_reference(reference: str | None, options: Mapping[str, str] | None) -> str:
    if reference is None:
        raise ValueError("there is no reference")
    written = reference.strip()
    if options is None:
        letter = _label(written)
        if letter is None or letter not in _LETTERS:
            raise ValueError(
                f"the reference {written!r:.60} is no letter from A to Z; give the letter, or name the column of "
                "choices in params.choices"
            )
        return letter
    meant = {label for label in options if label == (_label(written) or written.upper())}
    same = [label for label, text in options.items() if _folded(text) == _folded(written)]
    meant |= set(same)
    labels = list(options)
    if written not in options and re.fullmatch(r"[0-9]{1,2}", written) and int(written) < len(labels):
        meant.add(labels[int(written)])
    if len(meant) != 1:
        which = f"could mean the choices {', '.join(sorted(meant))}" if meant else "names none of the choices"
        raise ValueError(f"the reference {written!r:.60} {which}; give the letter of the right one")
    return meant.pop()


def _label(written: str) -> str | None:
    """The label of a text that is nothing else: `B`, `b`, `(B)`, `B.`, `B)`, `B:`."""
    match = _LABELLED.fullmatch(written)
    if match is None or (match["rest"] or match["more"] or "").strip():
        return None
    return (match["inside"] or match["bare"]).upper()


def _given(text: str, options: Mapping[str, str] | None) -> tuple[str | None, str]:
    """The label that the text gives, or None and why."""
    written = _unwrapped(_BOLD_LABEL.sub(r"\1", text.strip()))
    if not written:
        return None, "the text is blank"
    by_text = [label for label, one in (options or {}).items() if _folded(one) == _folded(written)]
    match = _LABELLED.fullmatch(written)
    label = (match["inside"] or match["bare"]).upper() if match else None
    if label not in (options or _LETTERS):
        label = None
    rest = ((match["rest"] or match["more"] or "") if match else "").strip()
    if label is not None and rest:
        if options is not None and _folded(rest) != _folded(options[label]):
            return None, f"what follows {label} is not the text of that choice"
        if options is None and _ANOTHER.search(rest):
            return None, f"what follows {label} holds another single letter; with params.choices it could be compared"
    found = {*by_text, *([label] if label is not None else [])}
    if len(found) == 1:
        return found.pop(), ""
    if found:
        return None, f"the text could mean the choices {', '.join(sorted(found))}"
    return None, f"the text {text.strip()!r:.60} is not one choice"


def _unwrapped(text: str) -> str:
    while (match := _WRAPPED.fullmatch(text)) is not None:
        text = (match[1] if match[1] is not None else match[2]).strip()
    return text


def _folded(text: str) -> str:
    return " ".join(_unwrapped(text.strip()).casefold().split()).removesuffix(".")
