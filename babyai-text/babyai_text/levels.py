"""The levels of BabyAI-Text that minigrid lacks.

One class is one level. Rooms are 8x8 with their walls; missions are judged by minigrid's own instructions. The order of
random draws is part of a level's definition: the same seed gives the same episode as in the published environment, so
do not reorder calls here.
"""

from collections.abc import Sequence
from typing import Any

from minigrid.core.world_object import Key, WorldObj
from minigrid.envs.babyai.core.roomgrid_level import RejectSampling, RoomGridLevel
from minigrid.envs.babyai.core.verifier import (
    ActionInstr,
    AfterInstr,
    BeforeInstr,
    GoToInstr,
    Instr,
    ObjDesc,
    OpenInstr,
    PickupInstr,
    PutNextInstr,
    SeqInstr,
)

from babyai_text.options import check_choice, step_limit, whole_number
from babyai_text.quiet import generate_quietly

# (type, colour) pairs that training missions never name. They still lie around as distractors.
HELD_OUT = {("box", "yellow"), ("key", "red"), ("door", "red"), ("ball", "green"), ("door", "grey")}

TASKS = ("goto", "pickup", "open", "putnext", "pick up seq go to")  # in the order of the draw
TASK_KINDS = ("per_episode", "per_instance", *TASKS)
MAX_DISTRACTORS = 16  # each one more makes a room with every object reachable rarer: see the README


class LocalLevel(RoomGridLevel):
    """Base of the levels: one room, random objects, and a rule on what missions may name.

    Args:
        num_dists: size of the heap of distractors; how many objects that makes is up to the task.
        max_steps: time limit of every episode; None leaves it to the size of the task.
        kwargs: options of every MiniGrid environment (agent_view_size, render_mode, ...).

    Raises:
        ValueError: an option's value that is not allowed.
    """

    instrs: Instr
    names_held_out_only = False  # True: missions name nothing but held-out pairs; False: none of them
    wordings: Sequence[str] = ("then", "after")

    def __init__(self, num_dists: int = 8, *, max_steps: int | None = None, **kwargs: Any):
        self.num_dists = whole_number("num_dists", num_dists, least=0, most=MAX_DISTRACTORS)
        super().__init__(num_rows=1, num_cols=1, max_steps=step_limit(max_steps), **kwargs)

    def _gen_grid(self, width: int, height: int) -> None:
        generate_quietly(self, width, height)

    def validate_instrs(self, instr: Instr) -> None:
        """Reject missions that name a pair they must not name, then what minigrid rejects."""
        if isinstance(instr, ActionInstr):
            for role in ("desc", "desc_move", "desc_fixed"):
                desc = getattr(instr, role, None)
                if desc and ((desc.type, desc.color) in HELD_OUT) != self.names_held_out_only:
                    raise RejectSampling(f"missions of this level do not name {desc}")
        super().validate_instrs(instr)

    def place_objects(self, count: int) -> list[WorldObj]:
        """Place the agent and `count` random objects in the room."""
        self.place_agent()
        return self.add_distractors(num_distractors=count, all_unique=False)

    def choose_two(self, objects: Sequence[WorldObj]) -> tuple[ObjDesc, ObjDesc]:
        """Two targets; they share type and colour only where at least two such objects exist."""
        looks = [(thing.type, thing.color) for thing in objects]
        first, second = self._rand_elem(looks), self._rand_elem(looks)
        while second == first and looks.count(first) < 2:
            second = self._rand_elem(looks)
        return ObjDesc(*first), ObjDesc(*second)

    # Each task ends with the reachability test, after all of its draws: a room is thrown away as a whole.

    def act_on_one(self, act: type[GoToInstr | PickupInstr]) -> Instr:
        """Go to or pick up one of `num_dists` + 1 objects."""
        target = self._rand_elem(self.place_objects(self.num_dists + 1))
        self.check_objs_reachable()
        return act(ObjDesc(target.type, target.color))

    def put_next(self) -> Instr:
        """Put one of `num_dists` + 2 objects next to another."""
        moved, fixed = self.choose_two(self.place_objects(self.num_dists + 2))
        self.check_objs_reachable()
        return PutNextInstr(moved, fixed)

    def pick_up_first(self, act_afterwards: type[GoToInstr | PickupInstr]) -> SeqInstr:
        """Pick up one of `num_dists` + 2 objects and afterwards act on another, in one of the level's wordings."""
        first, second = self.choose_two(self.place_objects(self.num_dists + 2))
        wording = self._rand_elem(self.wordings)
        self.check_objs_reachable()
        if wording == "then":
            return BeforeInstr(PickupInstr(first), act_afterwards(second))
        return AfterInstr(act_afterwards(second), PickupInstr(first))


class PickUpSeqGoToLocal(LocalLevel):
    """Pick up an object, then go to an object: "A, then B" or "B after you A"."""

    def gen_mission(self) -> None:
        self.instrs = self.pick_up_first(GoToInstr)


class PickUpThenGoToLocal(PickUpSeqGoToLocal):
    """Pick up an object, then go to an object: always "A, then B"."""

    wordings = ("then",)


class GoToAfterPickUpLocal(PickUpSeqGoToLocal):
    """Pick up an object, then go to an object: always "B after you A"."""

    wordings = ("after",)


class PickUpSeqPickUpLocal(LocalLevel):
    """Pick up an object, then pick up an object: "A, then B" or "B after you A"."""

    def gen_mission(self) -> None:
        self.instrs = self.pick_up_first(PickupInstr)


class MixedTrainLocal(LocalLevel):
    """Five tasks: go to, pick up, open a locked door, put next, pick up then go to. None names a held-out pair.

    PAPER-DIFF(8): the published level draws its task once per instance, before it is seeded.

    Args:
        task_kind: "per_episode" draws the task anew at every reset; "per_instance" at the first reset and whenever
            reset is given a seed; the name of a task fixes it, without a draw.
        num_dists: distractors; go to and pick up have one object more, put next and the sequence two, open the key.
        kwargs: as in `LocalLevel`.
    """

    door_colors: Sequence[str] = ("yellow", "green", "blue", "purple")
    door_color_may_be_left_out = True

    def __init__(self, task_kind: str = "per_episode", **kwargs: Any):
        check_choice("task_kind", task_kind, TASK_KINDS)
        self.task_kind = task_kind
        self.task: str | None = task_kind if task_kind in TASKS else None
        super().__init__(**kwargs)

    @property
    def instance_state(self) -> str | None:
        """What outlives an episode beside the random generator: the task, where it is drawn once per instance."""
        return self.task

    @instance_state.setter
    def instance_state(self, task: str | None) -> None:
        self.task = task

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        if self.task_kind == "per_episode" or (self.task_kind == "per_instance" and kwargs.get("seed") is not None):
            self.task = None
        return super().reset(**kwargs)

    def _gen_grid(self, width: int, height: int) -> None:
        # here, and not in reset, because the generator has its seed by now; a rejected room keeps the task
        if self.task is None:
            self.task = self._rand_elem(TASKS)
        self.num_cols = 2 if self.task == "open" else 1
        self.width = self.num_cols * (self.room_size - 1) + 1
        if self.task == "open":
            self._rand_int(1, self.room_size - 1)  # decides nothing, but the published level draws it at each reset
        super()._gen_grid(self.width, height)

    def gen_mission(self) -> None:
        if self.task == "goto":
            self.instrs = self.act_on_one(GoToInstr)
        elif self.task == "pickup":
            self.instrs = self.act_on_one(PickupInstr)
        elif self.task == "open":
            self.instrs = self.open_door()
        elif self.task == "putnext":
            self.instrs = self.put_next()
        else:
            self.instrs = self.pick_up_first(GoToInstr)

    def open_door(self) -> Instr:
        """Two rooms; the agent, the key and all objects are on the same side of a locked door."""
        color = self._rand_elem(self.door_colors)
        locked_room = self.lock_room(color)
        while True:
            i, j = self._rand_int(0, self.num_cols), self._rand_int(0, self.num_rows)
            if self.get_room(i, j) is not locked_room:
                break
        # The agent still counts as standing where the room layout put it, so objects keep away from that cell, and
        # not from the one where it will start.
        self.place_in_room(i, j, Key(color))
        self.add_distractors(i, j, num_distractors=self.num_dists, all_unique=False)
        while True:
            self.place_agent()
            if self.room_from_pos(*self.agent_pos) is not locked_room:
                break
        named_color = self._rand_elem([None, color]) if self.door_color_may_be_left_out else color
        self.check_objs_reachable()
        return OpenInstr(ObjDesc("door", named_color))

    def lock_room(self, color: str) -> Any:
        """Put a locked door on a random inner wall of a random room and return that room."""
        while True:
            i, j = self._rand_int(0, self.num_cols), self._rand_int(0, self.num_rows)
            side = self._rand_int(0, 4)
            room = self.get_room(i, j)
            if room.neighbors[side]:
                self.add_door(i, j, side, color, locked=True)
                return room


class MixedTestLocal(MixedTrainLocal):
    """The five tasks of `MixedTrainLocal`, naming held-out pairs only."""

    names_held_out_only = True
    door_colors = ("red", "grey")
    door_color_may_be_left_out = False
