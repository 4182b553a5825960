"""The rules once more, in another form: a macro-action as one jump, whose length and reward are calculated.

Slots (home counters, boards, the hand) hold lists: a food, or the bowl and then its contents. A macro-action moves the
agent to where its walk ends, changes the lists, and earns what it earns in its last primitive step.
"""

HOMES = {"tomato": (0, 5), "lettuce": (1, 6), "onion": (2, 6), "bowl": (6, 5)}
BOARDS = {"first": (1, 0), "second": (2, 0)}
DELIVERY = (3, 0)


class Jumps:
    def __init__(self, foods, boards, recipe, radius):
        self.foods, self.boards, self.recipe, self.radius = foods, boards, recipe, radius
        self.agent = (1, 4)
        self.slots = {"hand": [], "delivered": []} | {board: [] for board in boards}
        self.slots |= {f"{item} home": [item] for item in (*foods, "bowl")}
        self.raw = set(foods)
        self.names = [*(f"get {food}" for food in foods), "get bowl", *boards, "deliver", "chop"]

    def copy(self):
        other = Jumps(self.foods, self.boards, self.recipe, self.radius)
        other.agent, other.raw = self.agent, set(self.raw)
        other.slots = {name: list(items) for name, items in self.slots.items()}
        return other

    def cell(self, slot):
        if slot.endswith(" home"):
            return HOMES[slot.removesuffix(" home")]
        return {"hand": self.agent, "delivered": DELIVERY, "deliver": DELIVERY, **BOARDS}[slot]

    def slot_of(self, item):
        return next(slot for slot, items in self.slots.items() if item in items)

    def macro(self, number):
        """(reward, primitive steps, whether the episode succeeded)"""
        name = self.names[number]
        steps, bonus = self.chop() if name == "chop" else self.get(name[4:]) if name[:4] == "get " else self.bring(name)
        paid = sum(-0.001 * 0.99**i for i in range(steps))
        return paid + bonus * 0.99 ** (steps - 1), steps, bool(self.slots["delivered"])

    def walk(self, slot):
        """Cells on the way, without the one under the agent: the rows first."""
        row, column = self.cell(slot)
        row, column = min(max(row, 1), 5), min(max(column, 1), 5)
        (r, c), way = self.agent, []
        while (r, c) != (row, column):
            r, c = (r + (row > r) - (row < r), c) if r != row else (r, c + (column > c) - (column < c))
            way.append((r, c))
        return way

    def go(self, slot):
        way = self.walk(slot)
        self.agent = way[-1] if way else self.agent
        return len(way)

    def chop(self):
        for board in self.boards:
            row, column = BOARDS[board]
            items = self.slots[board]
            if self.agent == (row, column + 1) and items and items[0] in self.raw:
                if not self.slots["hand"]:
                    self.raw.discard(items[0])
                    return 3, 0.2 if items[0] in self.recipe else 0
                return 3, 0
        return 1, 0

    def bring(self, slot):
        if not self.slots["hand"]:
            return max(self.go(slot), 1), 0
        steps = self.go(slot) + 1
        return steps, self.serve() if slot == "deliver" else self.touch(slot)

    def get(self, item):
        slot = self.slot_of(item)
        if slot == "hand":
            return 1, 0
        if item == "bowl":
            hand = self.slots["hand"]
            steps = self.go(slot) + 1
            if hand and hand[0] in self.raw:
                return steps, 0
            self.touch(slot)
            if hand:  # now in the bowl
                steps += 1
                if not self.slots["hand"]:
                    self.touch(slot)
            return steps, 0
        if self.slots[slot][0] == "bowl":
            for walked, (row, column) in enumerate([self.agent, *self.walk(slot)]):
                far = max(abs(row - self.cell(slot)[0]), abs(column - self.cell(slot)[1]))
                if far <= self.radius:
                    self.agent = (row, column)
                    return walked + 1, 0
        if slot in self.boards and item in self.raw:
            return max(self.go(slot), 1), 0
        return self.go(slot) + 1, self.touch(slot)

    def touch(self, slot):
        there, hand = self.slots[slot], self.slots["hand"]
        cooked = [len(items) == 1 and items[0] in self.foods and items[0] not in self.raw for items in (there, hand)]
        if not hand or not there:
            there, hand = hand, there
        elif there[0] == "bowl" and cooked[1]:
            there, hand = (there + hand, []) if slot == "bowl home" else ([], there + hand)
        elif hand[0] == "bowl" and cooked[0]:
            there, hand = [], hand + there
        self.slots[slot], self.slots["hand"] = there, hand
        return 0

    def serve(self):
        served, self.slots["hand"] = self.slots["hand"], []
        if sorted(served) == sorted(["bowl", *self.recipe]):
            self.slots["delivered"] = served
            return 1
        for item in served:
            self.slots[f"{item} home"] = [item]
        self.raw.update(food for food in served if food in self.foods)
        return -0.1

    def vector(self):
        def masked(cell, *more):
            far = max(abs(cell[0] - self.agent[0]), abs(cell[1] - self.agent[1])) > self.radius
            return [0] * (2 + len(more)) if far else [*cell, *more]

        told = []
        for food in self.foods:
            told += masked(self.cell(self.slot_of(food)), 0 if food in self.raw else 3)
        for slot in (self.slot_of("bowl"), *self.boards, "deliver", "hand"):
            told += masked(self.cell(slot))
        return told + ([1, 0, 0, 0, 0, 0, 0] if len(self.recipe) == 1 else [0, 0, 0, 1, 0, 0, 0])


def jumps(level, radius=2):
    if "Lettuce" in level:
        return Jumps(["tomato", "lettuce", "onion"], ["first", "second"], ["tomato", "lettuce"], radius)
    return Jumps(["tomato"], ["first"], ["tomato"], radius)
