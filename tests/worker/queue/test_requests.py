import pytest
from pydantic import ValidationError

from models.samplers.heun import Heun
from worker.queue.requests import REQUEST, InpaintRequest, SampleRequest


def test_requests_survive_json() -> None:
    sample = SampleRequest(model="tiny", version=1, count=2, seed=2**53 - 1, sampler=Heun(name="heun", sigma_min=0.1))
    inpaint = InpaintRequest.model_construct(
        **{**dict(sample), "kind": "inpaint"}, image=bytes(range(64)), mask=b"\x01" * 64
    )
    for request in (sample, inpaint):
        again = REQUEST.validate_json(request.model_dump_json())
        assert type(again) is type(request)
        assert dict(again) == dict(request)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValidationError, match="union_tag_invalid"):
        REQUEST.validate_python({"kind": "os.system", "model": "tiny"})
