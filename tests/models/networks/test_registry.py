import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from models import networks
from models.networks.unet import UNet


def offer(monkeypatch: pytest.MonkeyPatch, *references: str, kind: str = "theirs") -> None:
    """Has packages offer networks as entry points."""
    points = [EntryPoint(kind, reference, networks.GROUP) for reference in references]

    def entry_points(group: str, name: str | None = None) -> list[EntryPoint]:
        assert group == networks.GROUP
        return [point for point in points if name in (None, point.name)]

    monkeypatch.setattr(networks, "entry_points", entry_points)


def test_a_network_of_ours_is_loaded_by_its_kind() -> None:
    assert networks.load("unet") is UNet
    for kind in networks.OURS:
        networks.check(kind)
        assert callable(networks.load(kind))


def test_a_network_of_an_installed_package_is_one_more(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, "collections:OrderedDict")
    networks.check("theirs")
    assert networks.kinds() == sorted([*networks.OURS, "theirs"])
    assert networks.load("theirs").__name__ == "OrderedDict"
    assert networks.usual_parametrisation("theirs") is None


def test_ours_cannot_be_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, "collections:OrderedDict", kind="unet")
    assert networks.load("unet") is UNet


def test_an_unknown_kind_is_said_to_be_with_what_there_is_and_how_one_is_added() -> None:
    for look in (networks.check, networks.load):
        with pytest.raises(
            networks.UnknownNetwork, match=r"'swin' is unknown here; there is .*refinenet-v1.*entry point of the group"
        ):
            look("swin")


def test_two_packages_with_the_same_kind_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, "a.b:C", "d:E")
    with pytest.raises(networks.UnknownNetwork, match=r"is a\.b:C and d:E: uninstall"):
        networks.check("theirs")


def test_a_package_that_fails_to_import_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, "no_such_package:C")
    networks.check("theirs")  # without importing it
    with pytest.raises(networks.UnknownNetwork, match=r"no_such_package:C cannot be imported .*No module"):
        networks.load("theirs")


def test_looking_imports_no_torch() -> None:
    code = "import sys; from models import networks as n; n.kinds(); n.check('unet'); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
