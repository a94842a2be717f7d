"""Settings of the HTTP service, from the environment: SCORESERVE_PORT and so on."""

import os
import re
from ipaddress import ip_network
from pathlib import Path

from pydantic import Field, field_validator

from service.answering.addresses import parse_prefix
from service.webhooks.addresses import Network, parse_networks
from service.webhooks.records import check_secret
from service.webhooks.signatures import parse_secret
from worker.queue.settings import QueueSettings


class ServiceSettings(QueueSettings):
    """How the service listens and what it takes."""

    host: str = Field("127.0.0.1", description="Address to listen on; loopback unless asked otherwise.")
    port: int = Field(8000, ge=0, le=65535)
    root_path: str = Field(
        "", description="Below which path a proxy has this service, such as /score; else what X-Forwarded-Prefix says."
    )
    forwarded_allow_ips: str = Field(
        default_factory=lambda: os.environ.get("FORWARDED_ALLOW_IPS", "127.0.0.1,::1"),
        description="Addresses and networks of proxies whose X-Forwarded-For, -Proto and -Prefix are true; * for all.",
    )
    api_metrics_port: int | None = Field(
        None, ge=1, le=65535, description="A port of its own for /metrics, which is then nowhere else."
    )
    api_metrics_host: str = Field("127.0.0.1", description="Address of that port.")
    max_body_bytes: int = Field(8 * 2**20, ge=1024, description="Largest request body.")
    max_picture_pixels: int = Field(2**24, ge=1, description="Largest picture that is fitted to a model's size.")
    max_picture_side: int = Field(2**14, ge=1, description="Largest side of such a picture, in pixels.")
    max_jpeg_scans: int = Field(64, ge=1, description="Scans of a JPEG file; a progressive one has about ten.")
    decoders: int = Field(2, ge=1, description="Pictures decoded at once, one of a client, each in its own process.")
    decoding_seconds: int = Field(5, ge=1, description="Of a processor, for the pictures of a request.")
    decoding_memory_mb: int = Field(320, ge=16, description="Memory for the pictures of a request.")
    max_client_uploads: int = Field(16, ge=1, description="Requests with pictures of one client that wait or decode.")
    max_uploads_bytes: int = Field(
        2**26, ge=1024, description="Pictures that wait or decode, of all clients; of one at most half."
    )
    max_grid_pixels: int = Field(50_000_000, ge=1, description="Largest grid that is drawn.")
    drawers: int = Field(2, ge=1, description="Pictures drawn at once, one of a client, each in its own process.")
    drawing_seconds: int = Field(60, ge=1, description="Of a processor, for one picture.")
    drawing_memory_mb: int = Field(320, ge=16, description="Memory for one picture.")
    max_client_drawings: int = Field(16, ge=1, description="Pictures of one client that wait or are drawn.")
    max_client_drawing_pixels: int = Field(100_000_000, ge=1, description="Their pixels together.")
    max_client_downloads: int = Field(4, ge=1, description="Archives that are sent to one client at once.")
    max_views_bytes: int = Field(2**28, ge=0, description="Drawn pictures that are kept on disk.")
    views_seconds: float = Field(300.0, gt=0, description="How long they are kept there.")
    views_dir: Path | None = Field(None, description="Where; by default where the system has what is temporary.")
    max_json_bytes: int = Field(2**16, ge=1024, description="Largest JSON of a request, besides its pictures.")
    max_bodies_bytes: int = Field(2**26, ge=1024, description="Bodies of requests that are read, of all clients.")
    max_client_bodies_bytes: int = Field(2**25, ge=1024, description="The same, of one client.")
    body_timeout_seconds: float = Field(30.0, gt=0, description="How long a request's body may take to arrive.")
    header_timeout_seconds: float = Field(10.0, gt=0, description="How long its headers may take.")
    write_timeout_seconds: float = Field(30.0, gt=0, description="How long a client may take nothing of its answer.")
    max_connections: int = Field(3000, ge=1, description="Connections that are open at once.")
    max_client_connections: int = Field(
        500, ge=1, description="Of them, of one address; of a proxy in `forwarded_allow_ips` any number."
    )
    max_wait_seconds: float = Field(300.0, ge=0, description="Longest wait for a job in one request.")
    max_waits: int = Field(1000, ge=1, description="Requests that wait for their jobs at once.")
    max_client_waits: int = Field(250, ge=1, description="Of them, of one client.")
    cors_origins: str = Field("", description="Web sites whose pages may ask, with commas; none by default.")
    allowed_hosts: str = Field(
        "",
        description="Names that the service goes by besides localhost and addresses, with commas, such as "
        "score.example.com; .example.com for all below it, * for any.",
    )
    require_key: bool = Field(False, description="Refuse who has no key, even while there are no keys.")
    requests_per_minute: int | None = Field(None, ge=1, description="Of one client; a key may have its own limit.")
    client_requests_per_second: float = Field(
        100.0, gt=0, description="Of one client while others ask too; what is more waits for its turn."
    )
    max_client_image_steps: int | None = Field(
        None, ge=1, description="Image-steps that one client may have in flight; a key may have its own limit."
    )
    max_client_bytes: int | None = Field(
        2**33, ge=1, description="Bytes of images that one client may have kept, with those that are being made."
    )
    max_queue_image_steps: int | None = Field(200_000_000, ge=1, description="Image-steps in flight, of all clients.")
    max_queue_jobs: int | None = Field(10_000, ge=1, description="Jobs in flight, of all clients.")
    webhook_secret: str = Field(
        "",
        repr=False,
        description="What webhooks are signed with, whsec_...; two with a space between while one replaces the other.",
    )
    sealing_secret: str = Field(
        "",
        repr=False,
        description="What webhooks are sealed with in Redis, 32 random bytes in URL-safe base64; of two with a space "
        "between the first seals, and both open. Without it they lie there as they are.",
    )
    webhook_networks: str = Field(
        "", description="Private networks that webhooks may call, by http too, such as 10.0.0.0/8,fd00::/8."
    )
    max_images_bytes: int = Field(2**29, ge=1, description="Largest images of a job, wherever they are kept.")
    max_webhooks: int = Field(32, ge=1, description="Webhooks that one service calls at once.")
    max_client_webhooks: int = Field(8, ge=1, description="Of them, of one client.")
    max_host_webhooks: int = Field(8, ge=1, description="Of them, to one host.")
    max_frames_bytes: int = Field(2**25, ge=1, description="Largest `frames` of a job: frames x images x their pixels.")
    max_event_streams: int = Field(2000, ge=1, description="Streams of events that may be open at a time.")
    max_client_event_streams: int = Field(250, ge=1, description="Of them, of one client.")
    access_log: bool = Field(False, description="Log a line a request: whose, what, and what it took.")
    redis_timeout_seconds: float = Field(1.5, gt=0, description="How long one Redis command may take.")

    @field_validator("root_path")
    @classmethod
    def _check_root(cls, text: str) -> str:
        return parse_prefix(text)

    @field_validator("forwarded_allow_ips")
    @classmethod
    def _check_proxies(cls, text: str) -> str:
        for proxy in text.split(","):
            try:
                ip_network(proxy.strip(), strict=False)
            except ValueError as error:
                if proxy.strip() != "*":
                    raise ValueError(f"{proxy!r} is no address or network, such as 10.0.0.0/8, and not *") from error
        return text

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, text: str) -> str:
        for origin in text.split(","):
            if origin.strip() and not re.fullmatch(r"\*|https?://[^/?#@\s]+", origin.strip()):
                raise ValueError(f"{origin.strip()!r} is no origin: https://example.com, without a slash or path, or *")
        return text

    @field_validator("allowed_hosts")
    @classmethod
    def _check_hosts(cls, text: str) -> str:
        for host in text.split(","):
            if host.strip() and not re.fullmatch(r"\*|\.?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", host.strip()):
                raise ValueError(
                    f"{host.strip()!r} is no name of a host: score.example.com, without scheme or port, or *"
                )
        return text

    @field_validator("webhook_secret")
    @classmethod
    def _check_secret(cls, text: str) -> str:
        for secret in text.split():
            parse_secret(secret)
        return text

    @field_validator("sealing_secret")
    @classmethod
    def _check_sealing_secret(cls, text: str) -> str:
        for secret in text.split():
            check_secret(secret)
        return text

    @field_validator("webhook_networks")
    @classmethod
    def _check_networks(cls, text: str) -> str:
        parse_networks(text)
        return text

    @property
    def origins(self) -> list[str]:
        """The web sites of `cors_origins`."""
        return [origin.strip() for origin in self.cors_origins.split(",") if origin.strip()]

    @property
    def hosts(self) -> list[str]:
        """The names of `allowed_hosts`."""
        return [host.strip().lower() for host in self.allowed_hosts.split(",") if host.strip()]

    @property
    def secrets(self) -> list[bytes]:
        """The keys that webhooks are signed with."""
        return [parse_secret(secret) for secret in self.webhook_secret.split()]

    @property
    def sealing_secrets(self) -> list[str]:
        """What webhooks are sealed with in Redis."""
        return self.sealing_secret.split()

    @property
    def networks(self) -> list[Network]:
        """The private networks that webhooks may call."""
        return parse_networks(self.webhook_networks)
