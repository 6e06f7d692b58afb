"""A client of servers that speak OpenAI's chat-completions protocol.

- `exchange`  what is asked and answered; what must be in order before anything is asked
- `client`    `Endpoint`: threads, repetitions, waits, sums
- `attempt`   one request, and what its answer or its failure says
"""

from __future__ import annotations

from selftrain.endpoint.client import Endpoint
from selftrain.endpoint.exchange import Answer, Failure, FailureKind, Request, Totals, check_endpoint, shown_url

__all__ = ["Answer", "Endpoint", "Failure", "FailureKind", "Request", "Totals", "check_endpoint", "shown_url"]
