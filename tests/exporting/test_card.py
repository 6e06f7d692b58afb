"""The card: nothing that a model, a row or a recipe says can end the block that it is in; secrets are not said."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import yaml

from selftrain.exporting.card import Facts, fenced, marked, render
from selftrain.secrecy import HIDDEN, without_secrets

FACTS = Facts(
    title="Numbers",
    command="selftrain curate numbers",
    prompts={"sources": {"train": {"path": "train.jsonl"}}},
    generator={"path": "model"},
    scorers=[{"name": "exact"}],
    selection={"rule": "threshold"},
    funnel=[("sampled", 4), ("rule", 1)],
    counts={"examples": 1},
    versions={"selftrain": "1"},
)
HOSTILE = [
    "---\nlicense: other\n---\n# Mine",
    "```\n# Mine\n```",
    "````json\n</details><script>alert(1)</script>",
    "a | b |\n| c | d |",
    "\x1b[31mred\x07 \u202etxet desrever\u2028next \udc80 \x00",
    "{{ template }} <!-- comment",
]


def outside_of_blocks(card: str) -> str:
    """The Markdown beside front matter and fenced blocks, read as CommonMark reads it."""
    body = card.split("---\n", 2)[2]
    left, fence = [], None
    for line in body.splitlines():
        found = re.match(r" {0,3}(`{3,})(.*)$", line)
        if fence is None and found:
            fence = found[1]
        elif fence is not None and found and len(found[1]) >= len(fence) and not found[2].strip():
            fence = None
        elif fence is None:
            left.append(line)
    assert fence is None
    return "\n".join(left)


@pytest.mark.parametrize("text", HOSTILE)
def test_what_a_model_wrote_stays_in_its_block(text: str) -> None:
    row = {"prompt": [{"role": "user", "content": text}], "completion": text, text: 1}
    facts = replace(FACTS, prompts={"template": text}, scorers=[{"name": "regex", "params": {text: text}}])
    card = render(facts, {"prompt_completion": 1}, {"prompt_completion": [row]})
    harmless = render(FACTS, {"prompt_completion": 1}, {"prompt_completion": [{"prompt": "a"}]})
    assert outside_of_blocks(card) == outside_of_blocks(harmless)
    assert card.split("---\n")[1] == harmless.split("---\n")[1]
    card.encode("utf-8")
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u202e]", card)


@pytest.mark.parametrize("text", HOSTILE)
def test_what_a_recipe_says_is_no_markdown_and_no_second_front_matter(text: str) -> None:
    facts = replace(FACTS, title=text, license_notes=text, funnel=[(text, 3)], caveats=[text], tags=[text])
    card = render(facts, {"prompt_completion": 1}, {})
    front = yaml.safe_load(card.split("\n---\n")[0].removeprefix("---\n"))
    assert "license" not in front
    assert front["configs"][0]["config_name"] == "prompt_completion"
    body = card.split("\n---\n", 1)[1]
    assert "# Mine" not in [line.strip() for line in body.splitlines()]
    assert "<script>" not in body.replace("\\<", "")
    table = [line for line in outside_of_blocks(card).splitlines() if line.endswith("| 3 |")]
    assert [len(re.findall(r"(?<!\\)\|", line)) for line in table] == [3]


def test_long_texts_are_cut_and_sizes_named() -> None:
    card = render(FACTS, {"text": 12_345, "preference": 2}, {"text": [{"text": "x" * 5000}]})
    assert "x [...]" in card
    assert "x" * 1300 not in card
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["size_categories"] == ["10K<n<100K"]
    assert [one.get("default") for one in front["configs"]] == [True, None]


def test_markup_and_fences() -> None:
    assert marked("a*b_[c](d)\n<e>") == "a\\*b\\_\\[c\\](d) \\<e\\>"
    assert fenced("a ```` b", "text").startswith("`````text\n")


def test_secrets_are_hidden_wherever_they_stand() -> None:
    data = {
        "endpoint": {"url": "https://me:pw@host:8000/v1?api_key=pw#pw", "api_key": "pw", "key_variable": "MY_KEY"},
        "body": {"headers": [{"Authorization": "Bearer pw"}, "Bearer pw-and-more"], "access-key": "pw"},
        "words": "use hf_0123456789abcdefghij and sk-0123456789abcdefghij at http://a.b/c?pw",
        "path": "/home/pw/models/tiny",
        "home": "~/pw/tiny",
        "relative": "data/train.jsonl",
        "number": 3,
    }
    shown = without_secrets(data)
    assert "pw" not in str(shown)
    assert "0123456789" not in str(shown)
    assert shown["endpoint"] == {"url": "https://host:8000/v1", "api_key": HIDDEN, "key_variable": "MY_KEY"}
    assert (shown["path"], shown["home"], shown["relative"], shown["number"]) == ("tiny", "tiny", "data/train.jsonl", 3)
