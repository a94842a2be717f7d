"""Pictures of requests, read in processes apart: a file that takes too long or too much is its client's own loss."""

from collections.abc import Mapping
from dataclasses import asdict
from enum import StrEnum

from models.card import ImageShape
from service.answering.problems import invalid
from service.apart.crew import Crew, Overrun
from service.apart.turns import Turns
from service.asking.decoding import Limits
from service.asking.intake import Known
from service.asking.pictures import Fit
from service.settings import ServiceSettings
from worker.queue.requests import ColorizeRequest, InpaintRequest, UpscaleRequest

Files = Mapping[str, bytes]  # by their names in a request
_ALLOWED = "a file that takes less to decode: fewer pixels, fewer scans of a JPEG, or one that is not damaged"


class Asked(StrEnum):
    """What is known of the images of a request, as pictures.py has it."""

    UNMASKED = "unmasked"
    SMALL = "small"
    GREY = "grey"


class Uploads:
    """Reads pictures, one of a client at a time.

    Args:
        settings: how many at once, and what each may take.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self.limits = Limits(settings.max_picture_pixels, settings.max_picture_side, settings.max_jpeg_scans)
        self.crew = Crew("service.asking.pictures", settings.decoding_seconds, settings.decoding_memory_mb)
        total = settings.max_uploads_bytes
        waiting = settings.max_client_uploads
        self.turns = Turns("pictures", "bytes", settings.decoders, waiting, total // 2, total)

    async def read(self, client: str, asked: Asked, shape: ImageShape, fit: Fit, files: Files) -> Known:
        """What is known of the images of a request, from its files; to cancel this ends what it has begun.

        Raises:
            Problem: the files do not fit the model, take too much to decode, or the client has too many under way.
        """
        sizes = {name: len(data) for name, data in files.items()}
        task = {"how": asked, "files": sizes, "shape": shape.model_dump(), "fit": fit, "limits": asdict(self.limits)}
        try:
            async with self.turns.of(client, sum(sizes.values())):
                answer, data = await self.crew.do(task, files.values())
        except Overrun as error:
            raise invalid("/image", f"reading the picture takes more than {error}", _ALLOWED) from error
        if "refused" in answer:
            field, reason, allowed = map(str, answer["refused"])
            raise invalid(f"/{field}", reason, allowed)
        image, rest = data[: answer["image"]], data[answer["image"] :]
        match asked:
            case Asked.UNMASKED:
                return Known(InpaintRequest, {"image": image, "mask": rest})
            case Asked.SMALL:
                return Known(UpscaleRequest, {"image": image, "factor": shape.height // answer["height"]})
            case Asked.GREY:
                return Known(ColorizeRequest, {"image": image})
