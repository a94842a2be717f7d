import platform

import torch

from models.environment import describe, device_name, environment


def test_it_says_where_and_how() -> None:
    found = environment("scoreserve evaluate")
    assert found["command"] == "scoreserve evaluate"
    assert (found["python"], found["torch"]) == (platform.python_version(), torch.__version__)
    assert found["threads"] == torch.get_num_threads()
    assert found["device"] == device_name("cpu") != ""
    assert describe(found).startswith(f"{found['device']}, {found['cores']} cores, {found['threads']} threads, ")
