"""How many candidates a file holds, counted before a run without reading what they say."""

from __future__ import annotations

from pathlib import Path

from selftrain.config import GeneratorConfig, PromptsConfig, SourceConfig
from selftrain.prompts import rows
from selftrain.prompts.brought import WHERE, first_rows


def num_candidates(generator: GeneratorConfig, config: PromptsConfig, base: Path) -> int | None:
    """Of all rows, those of other prompts included; where a row holds a list, as many in each as in the first. None for
    what cannot be counted in one pass over files: functions, folders, hub data sets."""
    assert generator.file is not None
    total = 0
    each = [len(reading.candidates(row, place)) for reading, place, row in first_rows(generator, config, base)]
    for source, of_row in zip(generator.file.sources.values(), each, strict=True):
        number = _num_rows(source, base)
        if number is None:
            return None
        total += number * of_row
    return total


def _num_rows(source: SourceConfig, base: Path) -> int | None:
    assert source.path is not None
    kind = rows.kind_of(source, base, WHERE)
    path = base / Path(source.path).expanduser()
    if kind in (".json", ".csv"):  # which have to be read to be counted
        return sum(1 for _ in rows.stream(source, base, WHERE))
    if kind == ".jsonl":
        with path.open("rb") as file:
            lines = sum(1 for line in file if line.strip())
    elif kind == ".parquet":
        from selftrain.prompts import parquet

        lines = parquet.num_rows(path)
    else:
        return None
    return len(range(*slice(source.skip, None if source.limit is None else source.skip + source.limit).indices(lines)))
