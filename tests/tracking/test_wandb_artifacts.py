from dataclasses import replace

from rows import CONTROL, MadeRun

from selftrain.tracking.wandb_artifacts import best_of, payload_of

BOTH = ("survivors", "adapters")


def key(number, name, arm="main"):
    return f"arms/{arm}/rounds/{number:03d}/{name}-improve-00"


def test_a_payload_is_what_the_receipt_says_and_names_its_parents(tmp_path):
    run = MadeRun(tmp_path)
    run.round(1)
    selected, trained = run.round(2)
    survivors = payload_of(run.directory, selected.key, "a-run", BOTH)
    adapter = payload_of(run.directory, trained.key, "a-run", BOTH)
    assert (survivors.name, survivors.kind, survivors.aliases) == ("a-run-main-survivors", "survivors", ("round-2",))
    assert set(survivors.files) == {"survivors.parquet", "rejected.jsonl"}
    assert set(adapter.files) == {"adapter_model.safetensors", "adapter_config.json"}, "the steps are rows already"
    assert all(path.is_file() for path in adapter.files.values())
    assert adapter.parents == (
        ("a-run-main-survivors:round-2", "survivors"),
        ("a-run-main-adapter:round-1", "adapter"),
    )
    assert adapter.metadata["parents"] == trained.ingredients["inputs"]
    assert "config" not in adapter.metadata
    assert adapter.hash == next(value for name, value in trained.files.items() if name.endswith(".safetensors"))
    assert adapter.place == "artifacts/adapter/round-2"


def test_what_is_not_uploaded_is_nobodys_parent(tmp_path):
    run = MadeRun(tmp_path)
    run.round(1)
    run.round(2)
    adapter = payload_of(run.directory, key(2, "train"), "a-run", ("adapters",))
    assert adapter.parents == (("a-run-main-adapter:round-1", "adapter"),)
    assert payload_of(run.directory, key(2, "select"), "a-run", ("adapters",)) is None
    assert payload_of(run.directory, key(2, "train"), "a-run", ()) is None


def test_an_arm_that_starts_from_mains_adapter_has_it_as_its_parent(tmp_path):
    run = MadeRun(tmp_path)
    _, of_main = run.round(1)
    run.round(2)
    selected, trained = run.round(2, arm=CONTROL)
    run.directory.commit(
        replace(trained, ingredients={"inputs": {"survivors": selected.output, "start": of_main.output}})
    )
    found = payload_of(run.directory, trained.key, "a-run", BOTH)
    assert found.parents == (
        (f"a-run-{CONTROL}-survivors:round-2", "survivors"),
        ("a-run-main-adapter:round-1", "adapter"),
    )


def test_a_round_without_training_has_no_adapter_and_the_best_is_of_the_round_that_trained(tmp_path):
    run = MadeRun(tmp_path)
    run.round(1)
    _, trained = run.round(2)
    run.directory.commit(replace(trained, files={}))
    assert payload_of(run.directory, key(2, "train"), "a-run", BOTH) is None
    survivors, adapter = best_of(run.directory, 2, "a-run", BOTH)
    assert (survivors.key, adapter.key) == (key(1, "select"), key(1, "train"))
    assert adapter.aliases == ("round-1", "best")
    assert best_of(run.directory, 0, "a-run", BOTH) == []


def test_other_phases_have_no_payload(tmp_path):
    run = MadeRun(tmp_path)
    run.round(1)
    assert payload_of(run.directory, "arms/main/rounds/001/sample-wave-00", "a-run", BOTH) is None
    assert payload_of(run.directory, "arms/main/rounds/007/train-improve-00", "a-run", BOTH) is None
