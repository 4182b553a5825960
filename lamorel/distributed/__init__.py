"""Lamorel over several processes: RL processes, which run the script, and LLM processes, which serve.

    launched.py   who is who, from the environment; needs no torch
    joining.py    the process group and its store
    network.py    addresses, and the interface that reaches the others
    gpus.py       which GPUs an LLM process has
    children.py   processes that a script starts in an LLM process
    doors.py      how connections are made
    codec.py      a message as bytes, its tensors apart
    channel.py    whole messages over a connection, without blocking
    messages.py   what is sent
    failures.py   errors that travel, and errors about other processes
    split.py      shares of a batch by work
    client.py     the RL side, with Worker's verbs
    collective.py several RL processes that act as one
    server.py     the LLM side
    llm_group.py  LLM processes among themselves
    gradients.py  one gradient out of all shares

Requests do not travel over gloo, gradients do. A receive of gloo cannot be interrupted, so that a SIGTERM that asks for
a checkpoint would wait for the end of the call; and one time-out or one dead peer breaks every connection of a gloo
context, after which no survivor could be told the reason.
"""
