"""Configurations of score_sde_pytorch; tests of the import hold what they mean."""

import pytest

from models.importing.reading import ImportRefused
from models.importing.score_sde_config import read_config


def test_a_name_that_is_not_published_is_refused_with_those_that_are() -> None:
    with pytest.raises(
        ImportRefused, match=r"no configuration 've/mine'; there is .*ve/cifar10_ncsnpp_continuous.*json"
    ):
        read_config("ve/mine")
