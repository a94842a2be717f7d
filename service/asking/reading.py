"""Reading: from an HTTP request to a body, its files, and what it is known by if it is sent again."""

import base64
import binascii
import json
import re
from codecs import BOM_UTF8
from collections.abc import Collection
from typing import Any, TypeVar

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from pydantic import ValidationError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile

from models.sentences import LONGEST, shortened
from service.access.auth import Caller
from service.answering.problems import Problem, invalid, invalid_body
from service.asking.schemas import SampleBody
from service.context import context_of
from worker.queue.idempotency import Once

Body = TypeVar("Body", bound=SampleBody)

SHORT = 4096  # bytes of JSON that are read at once, in less time than a thread takes to begin
IDEMPOTENCY_KEY = r"^[\x21-\x7e]{1,255}$"
CHARSETS = {"utf-8", "utf8", "us-ascii"}  # of forms
IN_FORMS = {  # what a form has as JSON, and an example of it
    "sampler": '{"name": "heun"}',
    "labels": "[0, 1, 2]",
    "guidance_interval": "[0.1, 2.0]",
    "webhook": '{"url": "https://example.com/hooks/scoreserve"}',
}


def media_type(request: Request) -> str:
    """Of what the request holds, without parameters."""
    return request.headers.get("content-type", "").split(";")[0].strip().lower()


async def read_json(model: type[Body], request: Request) -> Body:
    """The body of a request; what is long is not read on the event loop.

    Raises:
        Problem: it is no JSON, or says what cannot be.
    """
    data = await _whole(request)
    return read(model, data) if len(data) <= SHORT else await run_in_threadpool(read, model, data)


async def _whole(request: Request) -> bytes:
    """The body, which `request.body()` would keep for as long as there is the request."""
    return b"".join([chunk async for chunk in request.stream()])


def read(model: type[Body], data: bytes) -> Body:
    """The body that JSON holds.

    Raises:
        Problem: it is no JSON, or says what cannot be.
    """
    try:
        return model.model_validate_json(data.removeprefix(BOM_UTF8) or b"null")  # nothing at all is no broken JSON
    except ValidationError as error:
        raise invalid_body(error, model) from error


def decode_base64(field: str, text: str) -> bytes:
    """The bytes of a base64 field; a data: URL is understood too.

    Raises:
        Problem: it is not base64.
    """
    _, _, encoded = text.rpartition(",") if text.startswith("data:") else ("", "", text)
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid(f"/{field}", f"this is not base64: {error}", "a picture file, base64-encoded") from error


async def read_with_files(
    request: Request, of_json: type[Body], of_form: type[Body], files: Collection[str]
) -> tuple[Body, dict[str, bytes]]:
    """The body of a request and its files: fields and files of a form, or JSON with files in base64.

    Args:
        request: any.
        of_json: with a field for each of the files.
        of_form: without.
        files: their names; `image` must be there.

    Raises:
        Problem: it is neither, is broken, or says what cannot be.
    """
    match media_type(request):
        case "multipart/form-data":
            return await _from_form(request, of_form, files)
        case "application/json":
            data, most = await _whole(request), context_of(request).settings.max_json_bytes
            return await run_in_threadpool(_from_json, of_json, data, files, most)
        case other:
            allowed = "send multipart/form-data or application/json"
            raise Problem("unsupported-media-type", f"Content-Type {shortened(other) or 'missing'}; {allowed}")


def _from_json(model: type[Body], data: bytes, files: Collection[str], most: int) -> tuple[Body, dict[str, bytes]]:
    """The body that JSON holds, and its files, in base64; besides those it may have so many bytes."""
    # What is between values is counted, since that is quick: each has one such sign and another byte at least.
    if 2 * sum(data.count(sign) for sign in (b",", b":", b"[", b"{")) > most:
        raise Problem("too-large", f"the JSON has too many values: besides its pictures {most} bytes are allowed")
    body = read(model, data)
    texts = {name: getattr(body, name) for name in files}
    return body, {name: decode_base64(name, text) for name, text in texts.items() if text is not None}


def once_of(request: Request, caller: Caller, route: bytes, body: SampleBody, *files: bytes) -> Once | None:
    """What a request is known by, if it has an Idempotency-Key; however it was written down.

    Raises:
        Problem: what it has is no key.
    """
    key = request.headers.get("idempotency-key")
    if key is None:
        return None
    if not re.fullmatch(IDEMPOTENCY_KEY, key):
        raise invalid("Idempotency-Key", "this is no key", "1 to 255 visible ASCII characters")
    return Once.of(caller.client, key, route, body.model_dump_json(exclude={"image", "mask"}).encode(), *files)


async def _from_form(request: Request, model: type[Body], known: Collection[str]) -> tuple[Body, dict[str, bytes]]:
    # The framework would decode names and values by whichever codec of Python's is named, and some take for ever.
    _, parameters = parse_options_header(request.headers["content-type"])
    charset = parameters.get(b"charset", b"utf-8").decode("latin-1")
    if charset.lower() not in CHARSETS:
        raise Problem("unsupported-media-type", f"the charset of the form is {shortened(charset, LONGEST)}; send utf-8")
    async with request.form(max_files=4, max_fields=16, max_part_size=64 * 1024) as form:
        files: dict[str, bytes] = {}
        fields: dict[str, str] = {}
        for name, value in form.multi_items():
            if name in files or name in fields:
                raise invalid(f"/{name}", "the field is there twice", "each field once")
            if isinstance(value, UploadFile):
                files[name] = await value.read()
            else:
                fields[name] = value
    # What a browser sends of a field or a file that was left empty.
    fields = {name: value for name, value in fields.items() if value or name not in {*model.model_fields, *known}}
    files = {name: content for name, content in files.items() if content or name not in known}
    if "image" not in files:
        raise invalid("/image", "the file is missing, or empty", "a picture file: PNG, JPEG, WebP, BMP, GIF or TIFF")
    if unknown := files.keys() - known:
        raise invalid(f"/{min(unknown)}", "there is no such file field", " and ".join(known))
    if sum(map(len, fields.values())) <= SHORT:
        return _from_fields(model, fields), files
    return await run_in_threadpool(_from_fields, model, fields), files


def _from_fields(model: type[Body], fields: dict[str, str]) -> Body:
    """The body that the fields of a form are; some of them hold JSON."""
    values: dict[str, Any] = dict(fields)
    for name, example in IN_FORMS.items():
        if name in fields:
            try:
                values[name] = json.loads(fields[name].removeprefix("\ufeff"))
            except (ValueError, RecursionError) as error:
                raise invalid(f"/{name}", f"this is not JSON: {error}", f"such as {example}") from error
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise invalid_body(error, model) from error
