import json
import logging
import sys

import pytest
import uvicorn
from typer.testing import CliRunner

from cli.logs import JsonFormatter, TextFormatter
from cli.main import app


def test_a_record_is_one_json_object_with_its_ids() -> None:
    try:
        raise ValueError("no")
    except ValueError:
        record = logging.LogRecord("worker", logging.WARNING, __file__, 1, "job %s failed", ("abc",), sys.exc_info())
    record.job, record.shard, record.secret = "abc", 3, "x"
    line = JsonFormatter().format(record)
    assert "\n" not in line
    found = json.loads(line)
    assert found.pop("time").endswith("+00:00")
    assert "ValueError: no" in found.pop("error")
    assert found == {"level": "warning", "logger": "worker", "message": "job abc failed", "job": "abc", "shard": 3}


def test_what_a_request_took_is_told_in_both_forms() -> None:
    record = logging.LogRecord("scoreserve.access", logging.INFO, __file__, 1, "GET %s", ("/models",), None)
    record.access = {"key": None, "status": 200}
    assert TextFormatter("%(message)s").format(record) == 'GET /models {"key": null, "status": 200}'
    found = json.loads(JsonFormatter().format(record))
    assert (found["message"], found["key"], found["status"]) == ("GET /models", None, 200)


def test_the_service_logs_json_if_asked_and_so_does_its_server(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What uvicorn says goes the same way: it is given no configuration of its own."""

    def run(server: uvicorn.Server) -> None:
        assert server.config.log_config is None
        server.started = True
        logging.getLogger("uvicorn.error").warning("no more files")

    monkeypatch.setattr("service.app.create_app", lambda _: None)
    monkeypatch.setattr("uvicorn.Server.run", run)
    monkeypatch.setattr(logging.root, "handlers", [])
    result = CliRunner().invoke(app, ["api", "--log-format", "json"])
    assert result.exit_code == 0
    assert not logging.getLogger("httpx").isEnabledFor(logging.INFO), "URLs of webhooks hold what is secret"
    written = json.loads((result.stderr or capfd.readouterr().err).splitlines()[-1])
    assert (written["level"], written["logger"], written["message"]) == ("warning", "uvicorn.error", "no more files")
