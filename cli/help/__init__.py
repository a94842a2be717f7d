"""An example of every command, shown at the end of its help."""

from collections.abc import Mapping

FIRST = """Three things that one does first:

  scoreserve up                                   run a service here; Ctrl-C stops it
  scoreserve sample --count 16 --out digits.png   ask it for images, in another terminal
  scoreserve doctor                               see what is wrong, if something is

All commands: scoreserve --help"""

EXAMPLES: Mapping[str, str] = {
    "up": "scoreserve up --port 9000",
    "api": "scoreserve api --port 8000 --redis-url redis://127.0.0.1:6379/0",
    "worker": "scoreserve worker --device cuda --slots 256",
    "train": "scoreserve train mnist --data data/mnist --out runs/mnist",
    "distill": "scoreserve distill mnist --out runs/mnist-fast",
    "guide": "scoreserve guide mnist --by mnist-guide --weight 2.5 --interval 0.3 2 --store runs/mnist/models",
    "republish": "scoreserve republish mnist --sampler heun --store my-models",
    "evaluate": "scoreserve evaluate mnist --data data/mnist --sampler heun --count 1000",
    "sample": "scoreserve sample --count 16 --sampler heun --out digits.png",
    "inpaint": "scoreserve inpaint digit.png mask.png --count 16 --out completions.png",
    "upscale": "scoreserve upscale small.png --count 4 --out large.png",
    "colorize": "scoreserve colorize grey.png --model cifar10 --out coloured.png",
    "jobs": "scoreserve jobs --state running",
    "cancel": "scoreserve cancel 6d35249ff46bf212d75f2f89",
    "models": "scoreserve models mnist",
    "samplers": "scoreserve samplers heun",
    "doctor": "scoreserve doctor --server http://127.0.0.1:9000",
    "keys create": "scoreserve keys create alice --requests-per-minute 600",
    "keys list": "scoreserve keys list",
    "keys usage": "scoreserve keys usage --json",
    "keys change": "scoreserve keys change 527d7207c7bc --priority high --expires 90d",
    "keys suspend": "scoreserve keys suspend 527d7207c7bc --cancel-jobs",
    "keys resume": "scoreserve keys resume 527d7207c7bc",
    "keys open": "scoreserve keys open",
    "keys revoke": "scoreserve keys revoke 527d7207c7bc",
    "operator jobs": "scoreserve operator jobs --state running",
    "operator cancel": "scoreserve operator cancel 6d35249ff46bf212d75f2f89",
    "operator drain": "scoreserve operator drain mnist",
    "operator resume": "scoreserve operator resume mnist",
    "operator drained": "scoreserve operator drained",
    "import ncsn": "scoreserve import ncsn checkpoint.pth --config config.yml --name cifar10",
    "import edm": "scoreserve import edm edm-cifar10-32x32-uncond-vp.pkl --name edm",
    "import score_sde": "scoreserve import score_sde checkpoint_26.pth --config ve/cifar10_ncsnpp_continuous --name ve",
    "import guided-diffusion": 'scoreserve import guided-diffusion 64x64.pt --name adm --flags "--image_size 64"',
    "import diffusers": "scoreserve import diffusers ddpm-cifar10-32/ --name ddpm",
    "import module": "scoreserve import module my_net:Net weights.pt --name mine --image 1x8x8 "
    "--predicts denoised --sigma 0.01 10",
    "import exported": "scoreserve import exported model.pt2 --name mine --image 1x8x8 --predicts denoised "
    "--sigma 0.01 10",
    "study plane": "scoreserve study plane --out docs/study",
    "study objectives": "scoreserve study objectives --out docs/study",
    "study trivial": "scoreserve study trivial --data data/mnist --out docs/study",
    "study noise": "scoreserve study noise --data data/mnist --out docs/study",
    "study filmstrip": "scoreserve study filmstrip --data data/mnist --out docs/study",
    "study reproducible": "scoreserve study reproducible --data data/mnist --out docs/study",
    "study hyperparameters": "scoreserve study hyperparameters --data data/mnist --out docs/study",
}


def example(name: str, more: str = "") -> str:
    """The end of a command's help.

    Args:
        name: of the command, with that of its group.
        more: what else stands there.
    """
    shown = f"Example: `{EXAMPLES[name]}`"
    return f"{shown}\n\n{more}" if more else shown
