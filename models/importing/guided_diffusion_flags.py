"""The flags of guided-diffusion, improved-diffusion and consistency_models: what a network of theirs computes."""

import json
import shlex
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.importing.reading import ImportRefused
from models.sentences import in_one_line

MAX_FLAGS = 65536  # bytes of a file of flags
# Multipliers by side of the image where the flag channel_mult is empty (script_util.py of either code).
MULTIPLIERS: dict[int, tuple[float, ...]] = {
    512: (0.5, 1, 1, 2, 2, 4, 4),
    256: (1, 1, 2, 2, 4, 4),
    128: (1, 1, 2, 3, 4),
    64: (1, 2, 3, 4),
    32: (1, 2, 2, 2),
}
# Flags of the scripts that do not change what the network computes.
IGNORED = frozenset(
    """
    code batch_size num_samples model_path use_ddim clip_denoised timestep_respacing seed generator sampler steps
    ts s_churn s_tmin s_tmax s_noise dropout use_checkpoint use_fp16 use_kl sigma_small rescale_learned_sigmas
    weight_schedule data_dir schedule_sampler lr weight_decay lr_anneal_steps global_batch_size microbatch
    ema_rate log_interval save_interval resume_checkpoint fp16_scale_growth teacher_model_path teacher_dropout
    target_ema_mode scale_mode total_training_steps start_ema start_scales end_scales distill_steps_per_iter
    loss_norm classifier_path classifier_scale classifier_use_fp16 classifier_width classifier_depth
    classifier_attention_resolutions classifier_use_scale_shift_norm classifier_resblock_updown classifier_pool
    """.split()  # noqa: SIM905
)


class Flags(BaseModel):
    """The flags that decide what a network computes, with the defaults of the scripts."""

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)

    image_size: int = Field(64, ge=1, le=4096)
    num_channels: int = Field(128, ge=2, le=8192)
    num_res_blocks: int = Field(2, ge=1, le=64)
    num_heads: int = Field(4, ge=1, le=1024)
    num_heads_upsample: int = Field(-1, ge=-1, le=1024)
    num_head_channels: int = Field(-1, ge=-1, le=8192)
    attention_resolutions: str | None = None
    channel_mult: str = ""
    class_cond: bool = False
    num_classes: int | None = Field(None, ge=1)
    use_scale_shift_norm: bool = True
    resblock_updown: bool = False
    use_new_attention_order: bool = False
    learn_sigma: bool = False
    diffusion_steps: int = Field(1000, ge=25, le=10_000)
    noise_schedule: Literal["linear", "cosine"] = "linear"
    predict_xstart: bool = False
    rescale_timesteps: bool | None = None
    training_mode: Literal["edm", "consistency_distillation", "consistency_training"] | None = None
    distillation: bool | None = None
    sigma_min: float = Field(0.002, gt=0)
    sigma_max: float = Field(80.0, gt=0)

    @property
    def mode(self) -> Literal["edm", "consistency"] | None:
        """What a network of consistency_models was trained as; None for the other code, which has no such flags."""
        if self.training_mode is None and self.distillation is None:
            return None
        return "edm" if self.training_mode == "edm" or self.distillation is False else "consistency"

    @property
    def multipliers(self) -> tuple[float, ...]:
        """Of the channels, from the finest resolution.

        Raises:
            ImportRefused: there is none for this image_size, or channel_mult is no list of numbers.
        """
        if not self.channel_mult:
            if self.image_size not in MULTIPLIERS:
                raise ImportRefused(
                    f"flag channel_mult is needed for image_size {self.image_size}; there is a default for "
                    f"{', '.join(map(str, sorted(MULTIPLIERS)))}"
                )
            return MULTIPLIERS[self.image_size]
        return tuple(_numbers("channel_mult", self.channel_mult))

    @property
    def attention(self) -> tuple[bool, ...]:
        """Whether each resolution, from the finest, has self-attention."""
        usual = "16,8" if self.mode is None else "32,16,8"
        sides = _numbers("attention_resolutions", self.attention_resolutions or usual)
        factors = {self.image_size // int(side) for side in sides if side >= 1}
        return tuple(2**level in factors for level in range(len(self.multipliers)))


def read_flags(said: str) -> Flags:
    """The flags of a command line, `--name value --name value`, or of a file that holds those or a JSON object.

    Raises:
        ImportRefused: there is no such file, or a flag is unknown or has a value that it cannot have.
    """
    text = said
    if not said.lstrip().startswith("-"):
        try:
            with Path(said).open("rb") as file:
                text = file.read(MAX_FLAGS).decode()
        except (OSError, ValueError) as error:
            raise ImportRefused(
                f"the flags {said!r} are neither of the form '--name value', nor a file that can be read: {error}"
            ) from error
    given = _of_json(text) if text.lstrip().startswith("{") else _of_command_line(text)
    try:
        return Flags.model_validate({name: value for name, value in given.items() if name not in IGNORED})
    except ValidationError as error:
        said = in_one_line(error, Flags).replace("there is no field ", "there is no flag ")
        raise ImportRefused(f"the flags cannot be: {said}") from error


def _of_json(text: str) -> dict[str, Any]:
    try:
        flags = json.loads(text)
    except ValueError as error:
        raise ImportRefused(f"the flags are no JSON: {error}") from error
    return {str(name): value for name, value in flags.items()}


def _of_command_line(text: str) -> dict[str, Any]:
    try:
        words = [part for word in shlex.split(text) for part in (word.split("=", 1) if word[:2] == "--" else [word])]
    except ValueError as error:
        raise ImportRefused(f"the flags are no command line: {error}") from error
    names, values = words[::2], words[1::2]
    if len(names) != len(values) or not all(name.startswith("--") for name in names):
        raise ImportRefused("the flags are not of the form '--name value --name value'")
    return dict(zip((name[2:] for name in names), values, strict=True))


def _numbers(flag: str, text: str) -> list[float]:
    try:
        numbers = [float(number) for number in text.split(",") if number.strip()]
    except ValueError:
        numbers = []
    if not all(0 < number <= 4096 for number in numbers) or not numbers or len(numbers) > 12:
        raise ImportRefused(f"flag {flag} = {text!r} is no list of numbers, such as 32,16,8")
    return numbers
