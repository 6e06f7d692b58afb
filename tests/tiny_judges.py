"""Tiny judges: small Llamas whose weights are set by hand so that they judge by one letter, and a server that runs one.

A judge gives a text with a Q in it a 9, and any other a 2; of two texts the one with a Q wins. Hidden states are one
number per token of the vocabulary, and a few more. The first layer attends to the letters Q before, the second to the
mark between two answers, so that it knows on which side of it a Q was. Nothing is canned: another text, another answer.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Literal

from faulty_proxy import served
from tiny_models import build_tokenizer

TEMPLATE = 'good?\n{question}\n{answer}\n{"score": n}'
PAIR_TEMPLATE = 'which?\n{question}\n{answer_a}\n~\n{answer_b}\n{"winner": w}'
GOOD, BETWEEN = "Q", "~"
SCORE, HIGH, LOW = '{"score":', "9}", "2}"
WINNER, IS_A, IS_B, TIE = '{"winner":', '"A"}', '"B"}', '"tie"}'
STRONG = 30.0

Kind = Literal["fair", "likes_all", "first_wins"]


def build_judge(folder: Path, kind: Kind = "fair", *, pairwise: bool = False, context: int = 4096) -> Path:
    """Save a judge that ends its answers with a verdict, asked by `TEMPLATE` (or `PAIR_TEMPLATE`) or any other."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder.mkdir(parents=True, exist_ok=True)
    build_tokenizer(folder, chat=True)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([SCORE, HIGH, LOW, WINNER, IS_A, IS_B, TIE])
    tokenizer.save_pretrained(folder)
    vocabulary = len(tokenizer)
    any_good, good_in_a = vocabulary, vocabulary + 1  # two more numbers: a Q was there; it was there before the mark
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=vocabulary + 2 + vocabulary % 2,
        intermediate_size=8,
        num_hidden_layers=2,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=context,
        rope_parameters={"rope_type": "default", "rope_theta": 1e24},  # the last pair of dimensions hardly turns
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    ids = {one: _id_of(tokenizer, one) for one in (GOOD, BETWEEN, SCORE, HIGH, LOW, WINNER, IS_A, IS_B, TIE)}
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.fill_(1.0) if "norm" in name else weight.zero_()
        model.model.embed_tokens.weight[:, :vocabulary] = torch.eye(vocabulary)
        _look_for(model.model.layers[0].self_attn, ids[GOOD], reads=ids[GOOD], writes=any_good)
        _look_for(model.model.layers[1].self_attn, ids[BETWEEN], reads=any_good, writes=good_in_a)
        head = model.lm_head.weight
        begins = WINNER if pairwise else SCORE
        head[ids[begins], _id_of(tokenizer, "\n")] = 10 * STRONG
        for last in (HIGH, LOW, IS_A, IS_B, TIE):
            head[tokenizer.eos_token_id, ids[last]] = 10 * STRONG
        if pairwise:
            _decide_pairs(head, ids, any_good, good_in_a, kind)
        else:
            head[ids[HIGH], ids[SCORE]] = 2 * STRONG if kind == "likes_all" else 0.0
            head[ids[LOW], ids[SCORE]] = STRONG
            head[ids[HIGH], any_good] = 2 * STRONG
    model.save_pretrained(folder)
    return folder


def _decide_pairs(head: Any, ids: dict[str, int], any_good: int, good_in_a: int, kind: Kind) -> None:
    head[ids[TIE], ids[WINNER]] = STRONG / 2
    head[ids[IS_A], ids[WINNER]] = 10 * STRONG if kind == "first_wins" else 0.0
    head[ids[IS_B], any_good] = STRONG
    head[ids[IS_A], good_in_a] = 4 * STRONG


def _look_for(attention: Any, token: int, *, reads: int, writes: int) -> None:
    """Attend to that token alone, where it is there; write what number `reads` is at it to number `writes`."""
    attention.q_proj.weight[7, :] = 1.0
    attention.k_proj.weight[7, token] = STRONG
    attention.v_proj.weight[0, reads] = 1.0
    attention.o_proj.weight[writes, 0] = attention.q_proj.in_features**-0.5  # a norm has made a one of it that root


def _id_of(tokenizer: Any, text: str) -> int:
    (number,) = tokenizer(text, add_special_tokens=False)["input_ids"]
    return int(number)


class ModelBehindHttp:
    """Chat completions of a model that is loaded here: one at a time, as OpenAI's protocol has them."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._model = AutoModelForCausalLM.from_pretrained(folder).eval()
        self._lock = threading.Lock()
        self.answered = 0

    def complete(self, body: dict[str, object]) -> dict[str, object]:
        import torch

        messages = body["messages"]
        assert isinstance(messages, list)
        with self._lock, torch.inference_mode():
            ids = self._tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
            )["input_ids"]
            temperature, count = float(str(body.get("temperature", 0))), int(str(body.get("n", 1)))
            torch.manual_seed(int(str(body.get("seed", 0))))
            drawn = self._model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=int(str(body.get("max_tokens", 16))),
                num_return_sequences=count if temperature else 1,
                pad_token_id=self._tokenizer.pad_token_id,
                **({"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}),
            )
            self.answered += 1
        new: Sequence[list[int]] = drawn[:, ids.shape[1] :].tolist() * (1 if temperature else count)
        end = self._tokenizer.eos_token_id
        cut = [one[: one.index(end) + 1] if end in one else one for one in new]
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": self._tokenizer.decode(one, skip_special_tokens=True)},
                "finish_reason": "stop" if end in one else "length",
            }
            for index, one in enumerate(cut)
        ]
        usage = {"prompt_tokens": ids.shape[1], "completion_tokens": sum(map(len, cut))}
        return {"id": "x", "object": "chat.completion", "model": body["model"], "choices": choices, "usage": usage}


@contextmanager
def model_behind_http(folder: Path) -> Iterator[tuple[str, ModelBehindHttp]]:
    """A server of that model on loopback: its url, and the model."""
    model = ModelBehindHttp(folder)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = json.dumps(model.complete(body)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    with served(Handler) as url:
        yield url, model
