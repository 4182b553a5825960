"""Some continuations of a prompt, with their log-probabilities.

python lamorel/examples/generate.py --config-path configs --config-name generate
"""

import hydra
from omegaconf import DictConfig

from lamorel import Caller, lamorel_init

lamorel_init()

PROMPTS = ["Question: what do you need to open a locked door? Answer:", "The opposite of left is"]


@hydra.main(config_path="configs", config_name="generate", version_base=None)
def main(config: DictConfig) -> None:
    args = config.rl_script_args
    lm_server = Caller(config.lamorel_args)
    generated = lm_server.generate(
        contexts=PROMPTS,
        return_logprobs=True,
        num_beams=args.num_return_sequences,
        num_return_sequences=args.num_return_sequences,
        max_new_tokens=args.max_new_tokens,
    )
    for prompt, continuations in zip(PROMPTS, generated, strict=True):
        print(prompt)
        for continuation in continuations:
            print(f"  {continuation['text_logprob']:9.4f}  {continuation['text']!r}")
    lm_server.close()


if __name__ == "__main__":
    main()
