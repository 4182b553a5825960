"""SayCan's choice (Ahn et al. 2022): what the model finds useful, times what can succeed here.

    python lamorel/examples/saycan.py --config-path configs --config-name saycan

The model scores every skill as the next step of a plan; an affordance, here made up from a small world, says how likely
the skill is to succeed now. The product is taken, the skill is carried out, and becomes part of the prompt.
"""

import hydra
import torch
from omegaconf import DictConfig

from lamorel import Caller, lamorel_init

lamorel_init()

SKILLS = ["go to the table", "go to the user", "pick up the water bottle", "give it to the user", "stop"]


class World:
    """A robot, a bottle on a table, a thirsty user."""

    def __init__(self) -> None:
        self.place, self.holding, self.given = "door", False, False

    def affordances(self) -> torch.Tensor:
        """Chance of success of each skill, in [0, 1]."""
        at_table, at_user = self.place == "table", self.place == "user"
        possible = [
            not at_table,
            not at_user,
            at_table and not self.holding and not self.given,
            at_user and self.holding,
            self.given,
        ]
        return torch.where(torch.tensor(possible), 0.9, 0.001)

    def act(self, skill: str) -> None:
        if skill.startswith("go to"):
            self.place = skill.split()[-1]
        elif skill.startswith("pick up"):
            self.holding = True
        elif skill.startswith("give"):
            self.holding, self.given = False, True


@hydra.main(config_path="configs", config_name="saycan", version_base=None)
def main(config: DictConfig) -> None:
    args = config.rl_script_args
    lm_server = Caller(config.lamorel_args)
    world = World()
    steps: list[str] = []
    for step in range(args.max_steps):
        plan = "".join(f" {i + 1}. {skill}." for i, skill in enumerate(steps))
        prompt = f"User: {args.instruction}. Robot, what is your plan?{plan} {step + 1}."
        [logprobs] = lm_server.score(contexts=[prompt], candidates=[SKILLS])
        combined = logprobs.softmax(dim=0) * world.affordances()
        chosen = SKILLS[int(combined.argmax())]
        for skill, useful, possible in zip(SKILLS, logprobs.softmax(dim=0), world.affordances(), strict=True):
            print(f"  {useful.item():.4f} useful x {possible.item():.3f} possible  {skill}")
        print(f"step {step + 1}: {chosen}")
        if chosen == "stop":
            break
        world.act(chosen)
        steps.append(chosen)
    lm_server.close()


if __name__ == "__main__":
    main()
