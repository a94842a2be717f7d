import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

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


def test_a_network_of_ours_is_loaded_by_its_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(networks.SETTING, "exported")
    assert networks.load("unet") is UNet
    for kind in networks.OURS:
        networks.check(kind)
        if networks.OURS[kind].extra is None:
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


@pytest.mark.parametrize("kind", ["my_networks:small", "exported"])
def test_code_that_a_card_names_is_run_only_if_the_operator_names_it_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    ran = tmp_path / "ran"
    (tmp_path / "my_networks.py").write_text(f"open({str(ran)!r}, 'w').close()\ndef small(): return 'small'\n")
    monkeypatch.syspath_prepend(tmp_path)
    for setting in ("", "another:one", f"{kind}s"):
        monkeypatch.setenv(networks.SETTING, setting)
        for look in (networks.check, networks.load):
            with pytest.raises(networks.UnknownNetwork, match=f"SCORESERVE_NETWORKS={kind}"):
                look(kind)
    assert not ran.exists()
    monkeypatch.setenv(networks.SETTING, f"another:one, {kind}")
    networks.check(kind)
    assert not ran.exists()
    assert callable(networks.load(kind))
    assert ran.exists() == (kind != "exported")


def test_the_operator_may_name_it_on_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(networks.SETTING, raising=False)
    assert networks.load("collections:OrderedDict", trusted=True).__name__ == "OrderedDict"


def test_code_that_cannot_be_imported_is_named_with_what_may_help(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, said in (("no_such_module:f", "No module named"), ("json:no_such_function", "no attribute")):
        monkeypatch.setenv(networks.SETTING, kind)
        with pytest.raises(networks.UnknownNetwork, match=rf"{said}.*is it installed, or its directory in PYTHONPATH"):
            networks.load(kind)


def test_a_network_that_needs_an_extra_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    monkeypatch.delitem(sys.modules, "models.networks.diffusers", raising=False)
    networks.check("diffusers-unet2d")  # the API needs none
    with pytest.raises(networks.UnknownNetwork, match=r"pip install 'scoreserve\[diffusers\]'"):
        networks.load("diffusers-unet2d")
