"""What a mission asks for, read from its sentence."""

_VERBS = {"go to ": "go to", "pick up ": "pick up", "open ": "open", "put ": "put next"}
_SINGLE = {"go to": "goto", "pick up": "pickup", "open": "open", "put next": "putnext"}  # `task_kind`'s names


def task_of(mission: str) -> str:
    """The kind of task: goto, pickup, open, putnext, or a sequence as "pick up seq go to", in the order it is done.

    Parts that an "and" joins are kept together: "open and pick up seq go to". A sentence of another form is "other".

    >>> task_of("go to the red ball after you pick up a key")
    'pick up seq go to'
    """
    steps = mission.split(", then ") if ", then " in mission else mission.split(" after you ")[::-1]
    names = [[_verb(part) for part in step.split(" and ")] for step in steps]
    if any(name is None for step in names for name in step):
        return "other"
    if len(names) == 1 and len(names[0]) == 1:
        return _SINGLE[str(names[0][0])]
    return " seq ".join(" and ".join(map(str, step)) for step in names)


def _verb(part: str) -> str | None:
    return next((name for start, name in _VERBS.items() if part.startswith(start)), None)
