import json
import logging
import sys

from cli.logs import JsonFormatter


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
