"""Attacks over HTTP itself: bodies, headers, connections, waits, streams, and questions without end."""

import io
import json
import threading

import httpx
from PIL import Image

from tests.system.attacks.mallory import Mallory

WIDE = json.dumps({f"field{number}": number for number in range(3000)}).encode()
JSON = {"Content-Type": "application/json"}
ENDLESS = b"X" * 2**16
TINY = b"1\r\n[\r\n" * 40_000
LINES = b"a:\r\n" * 4000
PROBE = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
ELSEWHERE = "127.0.0.2"  # an address that is no proxy's, and not the victim's


def wide_json(mallory: Mallory) -> None:
    """As many unknown fields as a body may have, and more than it may."""
    wider = json.dumps({f"f{number}": 0 for number in range(500_000)}).encode()
    bodies = [("/samples", WIDE), ("/samples", wider), ("/inpaint", wider), ("/inpaint", WIDE)]

    def one(http: httpx.Client, number: int) -> httpx.Response:
        path, body = bodies[number % len(bodies)]
        return http.post(path, content=body, headers=JSON)

    mallory.at_once(8, one)


def deep_json(mallory: Mallory) -> None:
    """Lists in lists, in a body and in a form."""

    def one(http: httpx.Client, number: int) -> httpx.Response:
        deep = "[" * 60_000
        if number % 2:
            return http.post("/samples", content=f'{{"sampler": {deep}', headers=JSON)
        files = {name: (None, deep) for name in ("sampler", "labels", "guidance_interval", "webhook")}
        return http.post("/inpaint", files={**files, "image": b"x"})

    mallory.at_once(8, one)


def large_uploads(mallory: Mallory) -> None:
    """Forms as large as may be, full of what looks like the end of a part."""
    content = b"\r\n--" * (2**21 - 500)

    def one(http: httpx.Client, _: int) -> httpx.Response:
        return http.post("/inpaint", files={"image": content})

    mallory.at_once(8, one)


def pictures_in_json(mallory: Mallory) -> None:
    content = json.dumps({"image": "A" * (8 * 2**20 - 100)}).encode()
    mallory.at_once(8, lambda http, _: http.post("/inpaint", content=content, headers=JSON))


def largest_jobs(mallory: Mallory) -> None:
    """As many images as a job may have, asked for and cancelled at once, which costs nothing."""
    body = {"count": 100_000, "sampler": {"name": "heun", "levels": 2}}

    def one(http: httpx.Client, _: int) -> httpx.Response:
        job = http.post("/samples", json=body)
        return http.delete(job.json()["links"]["self"]) if job.status_code == 202 else job

    mallory.at_once(8, one)
    _cancel_all(mallory)


def bodies_where_none_is_taken(mallory: Mallory) -> None:
    """Without end, where nobody needs a key."""
    mallory.in_turn = 100
    mallory.hold(mallory.in_turn, mallory.request("POST /healthz", "Content-Length: 100000000000"), ENDLESS)


def bodies_that_do_not_come(mallory: Mallory) -> None:
    """Each promises as much as may be, and takes as long as it may."""
    head = mallory.request("POST /inpaint", "Content-Type: application/json", f"Content-Length: {8 * 2**20}")
    mallory.hold(200, head, b"[")


def headers_without_end(mallory: Mallory) -> None:
    mallory.hold(400, b"GET /models HTTP/1.1\r\nHost: localhost\r\n", b"X-Long: 1\r\n")


def chunks_of_a_byte(mallory: Mallory) -> None:
    """Bodies without end, and such to who takes none and asks for no key."""
    mallory.source = ELSEWHERE
    chunked = "Transfer-Encoding: chunked"
    heads = [mallory.request("POST /inpaint", "Content-Type: application/json", chunked), PROBE[:-2] + CHUNKED]
    threads = [threading.Thread(target=mallory.pour, args=(4, head, TINY, head is heads[0])) for head in heads]
    assert mallory.going
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def trailers_without_sense(mallory: Mallory) -> None:
    """As many lines as there may be, after a body of nothing."""
    mallory.source = ELSEWHERE
    mallory.pour(8, PROBE[:-2] + CHUNKED, b"0\r\n" + LINES + b"\r\n", again=False)


def headers_without_sense(mallory: Mallory) -> None:
    """As many lines as there may be."""
    mallory.source = ELSEWHERE
    lines = mallory.request("GET /samplers")[:-2] + LINES + b"\r\n"
    mallory.hold(8, lines, lines)


def probes(mallory: Mallory) -> None:
    """As many as one can ask, with no key."""
    mallory.hold(200, PROBE, PROBE)


def what_threads_answer(mallory: Mallory) -> None:
    """The longest of it."""
    asked = ["/jobs?limit=100", "/models", "/metrics", "/workers"]
    with httpx.Client(base_url=mallory.addresses[0], headers=mallory.headers, timeout=60) as http:
        for _ in range(30):
            http.post("/samples", json={"count": 1})
    mallory.at_once(16, lambda http, number: http.get(asked[number % len(asked)]))


def forms_in_other_codecs(mallory: Mallory) -> None:
    """Of which some of Python's take seconds for a megabyte."""
    part = '--x\r\nContent-Disposition: form-data; name="f{}-"\r\n\r\n2n7c{}\r\n'
    body = "".join([*(part.format(number, "a" * 65_500) for number in range(16)), "--x--\r\n"]).encode()
    kind = {"Content-Type": "multipart/form-data; boundary=x; charset=punycode"}
    mallory.at_once(4, lambda http, _: http.post("/inpaint", content=body, headers=kind))


def requests_far_ahead(mallory: Mallory) -> None:
    """Many, whose answers nobody reads."""
    one = mallory.request("GET /openapi.json")
    with mallory.sockets(50, b"") as made:
        for connection in made:
            connection.settimeout(0.01)
        while mallory.going:
            for index, connection in enumerate(made):
                try:
                    connection.sendall(one * 50)
                except TimeoutError:
                    pass
                except OSError:
                    mallory.note("ended")
                    connection.close()
                    if another := mallory.connect(b""):
                        another.settimeout(0.01)
                        made[index] = another


def waits(mallory: Mallory) -> None:
    """Six hundred wait for jobs that take long."""
    body = json.dumps({"count": 1, "sampler": {"name": "follow_scores", "steps": 100_000}}).encode()
    length = f"Content-Length: {len(body)}"
    head = mallory.request("POST /samples", "Content-Type: application/json", "Prefer: wait=60", length)
    mallory.hold(600, head + body)
    _cancel_all(mallory)


def streams(mallory: Mallory) -> None:
    """Six hundred follow a job, and read nothing."""
    asked = {"count": 16, "sampler": {"name": "follow_scores", "steps": 100_000}}
    job = httpx.post(f"{mallory.addresses[0]}/samples", json=asked, headers=mallory.headers).json()
    mallory.hold(600, mallory.request(f"GET {job['links']['events']}?previews=true"))
    _cancel_all(mallory)


def the_document(mallory: Mallory) -> None:
    mallory.at_once(8, lambda http, _: http.get("/openapi.json"))


def questions(mallory: Mallory) -> None:
    """As many as one can ask, of what is cheap to ask for."""
    paths = ["/jobs", "/models", "/workers", "/samplers", "/nowhere", "/metrics", "/docs", "/"]
    mallory.at_once(16, lambda http, number: http.get(paths[number % len(paths)]))


def wrong_keys(mallory: Mallory) -> None:
    def one(http: httpx.Client, number: int) -> httpx.Response:
        return http.get("/models", headers={"Authorization": f"Bearer ssk_{number:016x}_{'0' * 40}"})

    mallory.at_once(16, one)


def small_pictures(mallory: Mallory) -> None:
    """Of the model's size: each is accepted, or the client's turn is not yet."""
    buffer = io.BytesIO()
    Image.new("L", (8, 8), 255).save(buffer, "PNG")
    files = {"image": buffer.getvalue(), "mask": buffer.getvalue()}
    mallory.at_once(16, lambda http, _: http.post("/inpaint", files=files, data={"count": 1}))
    _cancel_all(mallory)


def _cancel_all(mallory: Mallory) -> None:
    """Leaves no job behind."""
    with httpx.Client(base_url=mallory.addresses[0], headers=mallory.headers, timeout=60) as http:
        while found := http.get("/jobs", params={"state": ["queued", "running"], "limit": 100}).json()["jobs"]:
            for job in found:
                http.delete(job["links"]["self"])
