"""Knobs of filters over the texts of a whole round: near-duplicates, contamination, quality."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from selftrain.config.data import Source
from selftrain.config.knobs import Section


class NearDuplicatesConfig(Section):
    """Of texts that are nearly the same, the one with the best value stays; of equal values the first."""

    by: Literal["minhash", "ratio", "embedding"] = "minhash"
    """`minhash`: the share of word n-grams that two texts have in common, of all that either has (Jaccard similarity;
    datasketch finds which to compare). `ratio`: the share of characters that an edit leaves (RapidFuzz), for the
    candidates of one prompt. `embedding`: cosine of sentence embeddings (sentence-transformers)."""
    threshold: float = Field(default=0.8, gt=0, le=1)
    """From this similarity on. For `embedding`, by the model: with all-MiniLM-L6-v2, 0.9 to 0.95 for the same said in
    other words."""
    within: Literal["prompt", "all"] = "prompt"
    """Among the candidates of each prompt, or among all of the round. With `embedding`, `all` compares every pair: for
    a hundred thousand candidates, not for a million."""
    ngram: int = Field(default=5, ge=1)
    """Words per n-gram, for minhash. In a text of 50 words, one other word changes 5 of 46."""
    permutations: int = Field(default=128, ge=16)
    """Of minhash. More find the same pairs with fewer comparisons."""
    model: str | None = None
    """For embedding: a folder (relative to the recipe), a hub id, or package:NAME/PATH for one inside an installed
    package, of a model that sentence-transformers or model2vec saved."""

    @model_validator(mode="after")
    def _fits(self) -> NearDuplicatesConfig:
        if (self.by == "embedding") != (self.model is not None):
            raise ValueError("near_duplicates: by: embedding and model go together; give both, or neither")
        if self.by == "ratio" and self.within == "all":
            raise ValueError("near_duplicates: by: ratio compares every pair; within: all takes minhash or embedding")
        for name in ("ngram", "permutations"):
            if self.by != "minhash" and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"near_duplicates: {name} is for by: minhash, and by is {self.by}; take it out")
        return self


class DecontaminateConfig(Section):
    """Candidates that share word n-grams with texts of an evaluation set leave; where the prompt itself shares them,
    all of the prompt's. Evaluation texts of 8 words or more count, shorter questions where they are the same; shorter
    answers do not, for they are the same by chance. What was removed is in `contamination.jsonl` beside the survivors.
    """

    against: tuple[Source, ...] = ()
    """Evaluation sets, beside the run's own validate and test prompts, which always count: as in `prompts`. What they
    ask, and references and completions where they have any, are compared."""
    ngram: int = Field(default=13, ge=4)
    """Words per n-gram (Brown et al. 2020, arXiv 2005.14165, appendix C)."""
    common: int | None = Field(default=None, ge=1)
    """N-grams that stand in more training prompts than this are the data's own phrases, as a task put before each
    problem, and do not count (10 in the paper, over documents). Null: all count. Words of `prompts.template` and
    worked examples never do."""


class QualityConfig(Section):
    """Bounds on what an answer is like. Null: not asked. Words are runs of letters and digits; a character of a script
    that is written without spaces is one."""

    min_words: int | None = Field(default=None, ge=0)
    """Fewer words leave."""
    max_words: int | None = Field(default=None, ge=1)
    """More words leave."""
    max_repeated_ngrams: float | None = Field(default=None, ge=0, le=1)
    """Share of word 4-grams that stand earlier in the text too."""
    max_symbols: float | None = Field(default=None, ge=0, le=1)
    """Share of characters that are neither letters, digits nor white space."""
    ends_whole: bool = False
    """The text ends in a mark that ends a sentence, a closing bracket or quote, a fence of code, `$`, or an emoji."""
    without: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Regular expressions of which none may be found (refusals, boilerplate): `(?i)as an ai language model`."""

    @model_validator(mode="after")
    def _bounds_leave_something(self) -> QualityConfig:
        if all(getattr(self, name) == field.default for name, field in type(self).model_fields.items()):
            raise ValueError(
                "quality: no bound is given, so that it has no effect; give some of "
                f"{', '.join(type(self).model_fields)}, or leave it out"
            )
        if self.min_words is not None and self.max_words is not None and self.min_words > self.max_words:
            raise ValueError(f"quality: min_words {self.min_words} is over max_words {self.max_words}; nothing is left")
        return self
