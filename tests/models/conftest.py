import pytest
from pools import wells

from plateglass.models.pool import Pool


@pytest.fixture(scope="session")
def pool_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pool")
    Pool.create(folder, wells())
    return folder


@pytest.fixture
def pool(pool_folder):
    return Pool.open(pool_folder)
