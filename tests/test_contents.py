"""What the name of a model stands for, found without loading anything."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_models import build_model

from selftrain.contents import base_of_adapter, folder_digest, model_content, place
from selftrain.errors import ConfigError, DependencyError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_model(tmp_path_factory.mktemp("contents") / "model")


def test_a_folder_is_its_files_wherever_it_stands(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "elsewhere")
    assert model_content("elsewhere", tmp_path) == model_content(str(model), Path()) == folder_digest(model)
    config = json.loads((tmp_path / "elsewhere/config.json").read_text())
    (tmp_path / "elsewhere/config.json").write_text(json.dumps({**config, "rope_theta": 1.0}))
    assert model_content("elsewhere", tmp_path) != folder_digest(model)


def test_an_adapter_is_itself_and_its_base(model: Path, tmp_path: Path) -> None:
    def adapter(name: str, base: Path | None) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        named = {} if base is None else {"base_model_name_or_path": str(base)}
        (folder / "adapter_config.json").write_text(json.dumps({"r": 4, **named}))
        return folder

    on_model, alone = adapter("on", model), adapter("alone", None)
    assert base_of_adapter(on_model) == str(model)
    assert base_of_adapter(alone) is None
    before = model_content("on", tmp_path)
    other = build_model(tmp_path / "other", seed=1)
    (on_model / "adapter_config.json").write_text(json.dumps({"r": 4, "base_model_name_or_path": str(other)}))
    assert model_content("on", tmp_path) != before


def test_a_hubs_model_is_its_commit_as_the_cache_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / "models--owner--name"
    (folder / "snapshots" / COMMIT).mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs/main").write_text(COMMIT)
    found = place("owner/name", tmp_path)
    assert (found.path, found.revision, found.on_disk) == ("owner/name", COMMIT, None)
    assert model_content("owner/name", tmp_path) == model_content("owner/name", tmp_path, revision=COMMIT)
    assert model_content("owner/name", tmp_path, revision="f" * 40) != model_content("owner/name", tmp_path)


def test_a_package_may_hold_one_model_or_name_its_folder(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "packaged_reward"
    package.mkdir()
    (package / "__init__.py").touch()
    model_folder = package / "model"
    shutil.copytree(model, model_folder)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("package:packaged_reward", "package:packaged_reward/model"):
        assert place(name, Path()).path == str(model_folder)
        assert model_content(name, Path()) == folder_digest(model)
    with pytest.raises(ConfigError, match=r"packaged_reward holds no 'other'; folders with models in it: model"):
        place("package:packaged_reward/other", Path())
    with pytest.raises(DependencyError, match="pip install not-there"):
        place("package:not_there", Path())


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no where", "no hub id"),
        ("a/b.gguf", "there is no 'a/b.gguf'"),
        ("empty", "neither a folder with a saved model"),
    ],
)
def test_names_that_stand_for_nothing_are_refused(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=rf"reward model: .*{words}"):
        place(name, tmp_path, what="reward model")


def test_large_weights_are_told_by_header_size_and_samples(tmp_path: Path) -> None:
    from selftrain import contents

    file = tmp_path / "model.safetensors"
    with file.open("wb") as opened:
        opened.write((16).to_bytes(8, "little") + b"{" + b" " * 14 + b"}")
        opened.truncate(contents.WHOLE_FILE_LIMIT + 4096)
    before = folder_digest(tmp_path)
    with file.open("r+b") as opened:
        opened.seek(-8, 2)
        opened.write(b"changed!")
    assert folder_digest(tmp_path) != before


def test_asking_imports_nothing_heavy(model: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom selftrain.contents import model_content\n"
        f"model_content({str(model)!r}, Path())\n"
        "assert not {'torch', 'transformers', 'huggingface_hub'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
