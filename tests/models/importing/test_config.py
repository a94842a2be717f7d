from pathlib import Path

import pytest

from models.importing.config import MAX_BYTES, ConfigRefused, read_config

OFFICIAL = Path(__file__).parents[2] / "data" / "official"
V1, V2 = OFFICIAL / "v1_mnist_mini_config.yml", OFFICIAL / "v2_cifar10_mini_config.yml"


def test_the_dump_of_a_namespace_is_read_as_data() -> None:
    config = read_config(V2)
    assert (config.data.dataset, config.data.channels, config.data.image_size) == ("CIFAR10", 3, 32)
    assert (config.model.ngf, config.model.num_classes) == (8, 232)
    assert (config.model.sigma_begin, config.model.sigma_end) == (50, 0.01)
    assert config.sampling is not None
    assert (config.sampling.n_steps_each, config.sampling.step_lr, config.sampling.denoise) == (5, 6.2e-6, True)


def test_what_decides_nothing_is_kept() -> None:
    kept = read_config(V1).model_dump(mode="json")
    assert kept["optim"]["lr"] == 0.001
    assert kept["training"]["batch_size"] == 128
    assert kept["sampling"] is None


def test_what_ncsnv2_prints_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "printed.yml"
    printed = V2.read_text().removeprefix("!!python/object:argparse.Namespace\n")
    device = "device: !!python/object/apply:torch.device\n- cuda\n"
    path.write_text(f"{'>' * 80}\n{printed}{device}\n{'<' * 80}\n")
    config = read_config(path)
    assert config.model_dump() == read_config(V2).model_dump() | {"device": "cuda"}


def test_plain_yaml_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "mnist.yml"
    path.write_text(V1.read_text().replace("!!python/object:argparse.Namespace", ""))
    assert read_config(path) == read_config(V1)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("logit_transform: false", "logit_transform: true", "data: logit_transform is true; allowed: false"),
        ("rescaled: false", "rescaled: true", "data: rescaled is true; allowed: false"),
        (
            "normalization: InstanceNorm++",
            "normalization: BatchNorm",
            "model: there is no normalization BatchNorm; allowed: InstanceNorm++",
        ),
        ("nonlinearity: elu", "nonlinearity: swish", "model: there is no nonlinearity swish; allowed: elu"),
        ("spec_norm: false", "spec_norm: true", "model: spec_norm is true; allowed: false"),
        ("sigma_dist: geometric", "sigma_dist: uniform", "model: there is no sigma_dist uniform; allowed: geometric"),
        ("sigma_begin: 50", "sigma_begin: 0.001", "noise levels must descend"),
        ("sigma_end: 0.01", "sigma_end: .nan", "model: sigma_end is NaN"),
        ("  anneal_power: 2", "  algo: dsm_freq", "training: there is no algo dsm_freq; allowed: dsm or ssm"),
        ("  num_classes: 232\n", "", "model: num_classes is missing"),
        ("step_lr: 6.2e-06", "step_lr: fast", "sampling: step_lr is 'fast'; allowed: a number, above 0"),
        ("batch_size: 100", "batch_size: 2020-02-20", "batch_size"),
    ],
)
def test_options_that_are_not_served_are_refused_with_what_is(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = tmp_path / "config.yml"
    assert old in V2.read_text()
    path.write_text(V2.read_text().replace(old, new))
    with pytest.raises(ConfigRefused) as refusal:
        read_config(path)
    assert said in str(refusal.value)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("!!python/object/apply:os.system ['touch {marker}']", "python/object/apply:os.system"),
        ("data: !!python/object/new:subprocess.Popen [['touch', '{marker}']]", "subprocess.Popen"),
        ("data: !!python/object:argparse.Namespace 1", "expected a mapping node"),
        ("data: !!python/object/apply:torch.device cuda", "expected a sequence node"),
        ("data: &a {{channels: 1}}\nmodel: *a", "aliases are not allowed"),
        ("a: b: c", "line 1"),
        ("[" * 5000, "RecursionError"),
        ("data: !!timestamp never", "AttributeError"),
        ("\x00", "not YAML"),
        ("just words", "the document is 'just words'; allowed: an object"),
        ("", "the document is null; allowed: an object"),
        (" " * MAX_BYTES + "a: 1", "larger than"),
    ],
    ids=[
        "apply",
        "new",
        "scalar",
        "device",
        "alias",
        "syntax",
        "deep",
        "timestamp",
        "binary",
        "words",
        "empty",
        "large",
    ],
)
def test_a_file_that_is_no_configuration_is_refused_and_nothing_in_it_runs(
    tmp_path: Path, text: str, said: str
) -> None:
    path, marker = tmp_path / "config.yml", tmp_path / "marker"
    path.write_text(text.format(marker=marker))
    with pytest.raises(ConfigRefused) as refusal:
        read_config(path)
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert not marker.exists()


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigRefused, match=r"config\.yml cannot be read: No such file"):
        read_config(tmp_path / "config.yml")
