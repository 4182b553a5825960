"""Which action does the model find most likely?

python lamorel/examples/score.py --config-path configs --config-name score
"""

import hydra
from omegaconf import DictConfig

from lamorel import Caller, lamorel_init

lamorel_init()

PROMPTS = [
    "Goal: open the red door. You see a red door one step ahead. You hold a red key. Next action:",
    "Goal: go to the ball. You see a ball two steps on your left. Next action:",
]
ACTIONS = ["turn left", "turn right", "go forward", "open the door", "pick up the ball"]


@hydra.main(config_path="configs", config_name="score", version_base=None)
def main(config: DictConfig) -> None:
    lm_server = Caller(config.lamorel_args)
    scores = lm_server.score(contexts=PROMPTS, candidates=[ACTIONS] * len(PROMPTS))
    for prompt, logprobs in zip(PROMPTS, scores, strict=True):
        print(prompt)
        for logprob, action in sorted(zip(logprobs.tolist(), ACTIONS, strict=True), reverse=True):
            print(f"  {logprob:9.4f}  {action}")
    lm_server.close()


if __name__ == "__main__":
    main()
