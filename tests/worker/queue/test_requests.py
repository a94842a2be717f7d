import pytest
from pydantic import ValidationError

from models.samplers.heun import Heun
from worker.queue.requests import REQUEST, InpaintRequest, SampleRequest


def test_requests_survive_json() -> None:
    sample = SampleRequest(model="tiny", version=1, count=2, seed=2**53 - 1, sampler=Heun(name="heun", sigma_min=0.1))
    told = sample.model_copy(update={"labels": (0, 2), "guidance": 1.5, "guidance_interval": (0.0, 2.5)})
    inpaint = InpaintRequest.model_construct(
        **{**dict(sample), "kind": "inpaint"}, image=bytes(range(64)), mask=b"\x01" * 64
    )
    for request in (sample, told, inpaint):
        again = REQUEST.validate_json(request.model_dump_json())
        assert type(again) is type(request)
        assert dict(again) == dict(request)


def test_images_have_labels_in_turn() -> None:
    request = SampleRequest(model="tiny", version=1, count=5, seed=0, sampler=Heun(name="heun"), labels=(3, 1))
    assert [request.label(index) for index in range(5)] == [3, 1, 3, 1, 3]
    assert request.model_copy(update={"labels": None}).label(2) is None


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValidationError, match="union_tag_invalid"):
        REQUEST.validate_python({"kind": "os.system", "model": "tiny"})
