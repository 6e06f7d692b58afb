"""The bench: the loaded base model of a run, its tokenizer, and the adapters mounted on it.

- `bench`       Bench: loads once, renders and decodes, mounts and unmounts adapters
- `sources`     where a model comes from: hub, folder, GGUF file, file inside a package; its digest
- `quantized`   base weights in 4 or 8 bits
- `adopted`     an adapter that was trained elsewhere, looked at before it is mounted
- `pristine`    the base model as it was when loaded, and the way back to it
- `probe`       proof that a mounted adapter is the one that was trained
- `turns`       turns between threads that load models and threads that compute with them
- `likelihood`  log-probabilities that a policy gives to tokens it did not sample

Importing this package imports torch, transformers and peft. The identity of adapter folders lives in
`selftrain.adapters`, which imports none of them.
"""

from __future__ import annotations

import os

# Read by huggingface_hub when it is imported, which the lines below do.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

from selftrain.adapters import adapter_digest, canonicalise_adapter
from selftrain.models.bench import Bench
from selftrain.models.likelihood import encode_text, token_logprobs
from selftrain.models.probe import check_probe, probe_logprobs, write_probe

__all__ = [
    "Bench",
    "adapter_digest",
    "canonicalise_adapter",
    "check_probe",
    "encode_text",
    "probe_logprobs",
    "token_logprobs",
    "write_probe",
]
