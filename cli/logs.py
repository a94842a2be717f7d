"""How a process writes its log: lines for a person, or JSON for a machine."""

import json
import logging
from datetime import UTC, datetime
from enum import StrEnum

IDS = ("job", "shard", "model", "worker")  # what a record may say besides its message


class LogFormat(StrEnum):
    """Form of a line."""

    TEXT = "text"
    JSON = "json"


def set_up(form: LogFormat) -> None:
    """Logs to standard error from level INFO on."""
    handler = logging.StreamHandler()
    text = TextFormatter("%(asctime)s %(name)s %(levelname)s %(message)s")
    handler.setFormatter(JsonFormatter() if form == LogFormat.JSON else text)
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it would tell whole URLs of webhooks, with what is secret


class TextFormatter(logging.Formatter):
    """One line a record; of an answered request all that is known of it, as JSON."""

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        return f"{line} {json.dumps(record.access, ensure_ascii=False)}" if hasattr(record, "access") else line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, the ids that it is about, and an error's traceback; of an
    answered request all that is known of it.
    """

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: getattr(record, name) for name in IDS if hasattr(record, name)}
        line |= getattr(record, "access", {})
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)
