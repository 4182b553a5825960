"""What all tests rely on."""

import signal

# A shell that runs the tests in the background has SIGINT ignored, which all processes of theirs would inherit; tests
# of Ctrl-C send it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
