from __future__ import annotations

import json
from pathlib import Path

import pytest

from selftrain.adapters import CONFIG, WEIGHTS, adapter_digest, canonicalise_adapter
from selftrain.errors import DataError


def write(folder: Path, config: dict[str, object], tensors: dict[str, bytes], order: list[str] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / CONFIG).write_text(json.dumps(config))
    header, body = {}, b""
    for name in order or list(tensors):
        header[name] = {
            "dtype": "U8",
            "shape": [len(tensors[name])],
            "data_offsets": [len(body), len(body) + len(tensors[name])],
        }
        body += tensors[name]
    text = json.dumps(header).encode()
    (folder / WEIGHTS).write_bytes(len(text).to_bytes(8, "little") + text + body)
    return folder


TENSORS = {"a": b"123", "b": b"4567"}


def test_the_digest_ignores_the_order_of_sets_and_of_tensors_and_the_place_of_the_base(tmp_path: Path) -> None:
    one = write(tmp_path / "one", {"target_modules": ["k", "q"], "r": 8, "base_model_name_or_path": "/x"}, TENSORS)
    two = write(
        tmp_path / "two", {"r": 8, "base_model_name_or_path": "/y", "target_modules": ["q", "k"]}, TENSORS, ["b", "a"]
    )
    assert adapter_digest(one) == adapter_digest(two)


@pytest.mark.parametrize(
    ("config", "tensors"),
    [({"r": 9}, TENSORS), ({"r": 8}, {"a": b"123", "b": b"4568"}), ({"r": 8}, {"a": b"123", "c": b"4567"})],
)
def test_the_digest_sees_a_changed_field_byte_and_name(
    tmp_path: Path, config: dict[str, object], tensors: dict[str, bytes]
) -> None:
    assert adapter_digest(write(tmp_path / "one", {"r": 8}, TENSORS)) != adapter_digest(
        write(tmp_path / "two", config, tensors)
    )


def test_canonical_configs_of_equal_adapters_are_equal_bytes_and_keep_the_digest(tmp_path: Path) -> None:
    one = write(tmp_path / "one", {"target_modules": ["k", "q"], "r": 8}, TENSORS)
    two = write(tmp_path / "two", {"r": 8, "target_modules": ["q", "k"]}, TENSORS)
    before = adapter_digest(two)
    canonicalise_adapter(one)
    canonicalise_adapter(two)
    assert (one / CONFIG).read_bytes() == (two / CONFIG).read_bytes()
    assert adapter_digest(two) == before


@pytest.mark.parametrize("keep", [0, 4, 40, -1])
def test_a_torn_file_is_refused(tmp_path: Path, keep: int) -> None:
    folder = write(tmp_path / "one", {"r": 8}, TENSORS)
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[:keep])
    with pytest.raises(DataError, match="again"):
        adapter_digest(folder)


def test_a_folder_without_a_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="adapter config"):
        adapter_digest(tmp_path)
