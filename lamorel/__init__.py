"""Lamorel: a language model behind four verbs, score, generate, custom_module_fns and update, for an RL script.

`import lamorel` and `lamorel.config` need neither torch nor transformers: the names below are imported at first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lamorel.distributed.children import let_children_be_stopped

if TYPE_CHECKING:
    from lamorel.caller import Caller
    from lamorel.distributed.joining import lamorel_init
    from lamorel.distributed.launched import is_llm_process
    from lamorel.initializer import BaseModelInitializer
    from lamorel.module_function import BaseModuleFunction
    from lamorel.updater import BaseUpdater

__all__ = ["BaseModelInitializer", "BaseModuleFunction", "BaseUpdater", "Caller", "is_llm_process", "lamorel_init"]

_HOME = {
    "BaseModelInitializer": "lamorel.initializer",
    "BaseModuleFunction": "lamorel.module_function",
    "BaseUpdater": "lamorel.updater",
    "Caller": "lamorel.caller",
    "is_llm_process": "lamorel.distributed.launched",
    "lamorel_init": "lamorel.distributed.joining",
}


let_children_be_stopped()  # now, as a script may start some before it uses any of these names


def __getattr__(name: str) -> Any:
    """Imports the public names on first access (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'lamorel' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
