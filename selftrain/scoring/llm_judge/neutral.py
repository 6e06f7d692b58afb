"""What is taken out of a text that others wrote before a judge reads it: what could pass for something else than text.

Hidden characters are removed; control tokens of chat templates, role markers and verdicts are changed by a character or
two, so that the judge still sees that they were there. See "One Token to Fool LLM-as-a-Judge" (Zhao et al. 2025, arXiv
2507.08794) and its successors on format spoofing.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Iterable

from selftrain.scoring.llm_judge.verdicts import KEYS, objects_in

# Chat templates of ChatML, Llama 2 and 3, Mistral, Gemma, Phi, DeepSeek, Command R, T5 and BERT.
_PIPES = re.compile(r"([<\uff1c])(?=[|\uff5c])|([|\uff5c])(?=[>\uff1e])")
_ANGLES = re.compile(
    r"<(?=/?(?:s|bos|eos|pad|unk|mask|cls|sep|think|thinking|tool_call|tool_response|tools|system|user|assistant|"
    r"start_of_turn|end_of_turn|start_of_image|end_of_image|extra_id_\d+|reserved_\w+|unused\d+|fim_\w+)>)|"
    r"<(?=</?SYS>>)",
    re.IGNORECASE,
)
_BRACKETS = re.compile(
    r"\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_[A-Z]+|THINK|CLS|SEP|MASK|PAD|UNK|BOS|EOS)\])"
)
_CONTROL = re.compile(
    rf"[<\uff1c][|\uff5c][^|\uff5c<>\n]{{1,60}}[|\uff5c][>\uff1e]|(?:{_ANGLES.pattern})[^<>\n]{{1,40}}>+|"
    rf"(?:{_BRACKETS.pattern})[^\]\n]{{1,40}}\]",
    re.IGNORECASE,
)
_HIDDEN = ("Cf", "Cc", "Cs", "Co")
_ROLES = re.compile(
    r"^(?P<before>[ \t>*#_-]*)(?P<role>system|user|assistant|human|developer|tool|judge|grader|evaluator|instructions?|"
    r"response|input|output|question|answer|reference|rubric|verdict)(?P<after>[*_ \t]*):",
    re.IGNORECASE | re.MULTILINE,
)
_VERDICT = re.compile(rf"([\"'`\u201c\u201d]?)\b({'|'.join(KEYS)})\b([\"'`\u201c\u201d]?)\s*[:\uff1a]", re.IGNORECASE)


def neutral(text: str, special: Iterable[str] = ()) -> str:
    """The text as a judge may read it. `special` are more control tokens: those of the judge's own tokenizer."""
    text = visible(text)
    text = _PIPES.sub(lambda found: f"{found[1]} " if found[1] else f" {found[2]}", text)
    text = _ANGLES.sub("< ", text)
    text = _BRACKETS.sub("[ ", text)
    for token in special:
        if len(token) > 1 and not token.isspace():
            text = text.replace(token, f"{token[0]} {token[1:]}")
    text = _ROLES.sub(lambda found: f"{found['before']}{found['role']}{found['after']} -", text)
    text = _VERDICT.sub(lambda found: f"{found[2]} =", text)
    # What a JSON reader would still take for a verdict, with its key spelt by escapes.
    for found in reversed(objects_in(text)):
        if any(key in KEYS for key in found.keys):
            text = f"{text[: found.start]}({text[found.start + 1 : found.end - 1]}){text[found.end :]}"
    return text


def visible(text: str) -> str:
    """The text without zero-width, direction and control characters, but line breaks and tabs."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return "".join(one for one in text if one in "\n\t" or unicodedata.category(one) not in _HIDDEN)


def bare(text: str, special: Iterable[str] = ()) -> str:
    """What is left of a text without control tokens and hidden characters."""
    text = visible(text)
    for token in special:
        text = text.replace(token, " ")
    return _CONTROL.sub(" ", text)


def says_nothing(text: str) -> bool:
    """Whether there is no letter, digit or symbol in it: it is empty, white space, or only punctuation."""
    return all(one in string.punctuation or unicodedata.category(one)[0] in "PZCM" for one in text)
