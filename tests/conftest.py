"""What all tests rely on."""

import signal

import pytest

# A shell that runs the tests in the background has SIGINT ignored, which all processes of theirs would inherit; tests
# of Ctrl-C send it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the few files that start many processes: the last of a run would keep one core busy alone."""
    items.sort(key=lambda item: "launch" not in item.path.name)
