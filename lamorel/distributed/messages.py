"""What RL and LLM processes send each other."""

from dataclasses import dataclass, field
from typing import Any

from lamorel.distributed.failures import Failure


@dataclass(frozen=True)
class Request:
    """A verb of the receiver with its arguments; the reply bears the same number."""

    number: int
    verb: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Reply:
    """A value, or what went wrong."""

    number: int
    value: Any = None
    failure: Failure | None = None


LOADED = 0  # number of the reply that an LLM process sends unasked, once its model is loaded
CLOSE = "close"  # the verb that is answered by the end of the process
ALIVE = "alive"  # the verb that is not answered: it says to an LLM process without work that there is still somebody
