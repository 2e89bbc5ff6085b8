import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # networks.py is for these tests only


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def taught(once):
    """(network, crops, planted pixels, classes, cells): a trained network and cells it never saw."""
    from networks import spots, trained

    def teach(folder):
        torch.set_num_threads(1)
        x, _, labels, _ = spots(600, seed=0)
        return trained(x, labels)

    network = once("taught", teach)
    x, planted, labels, cell = spots(48, seed=1)
    with torch.no_grad():
        accuracy = (network(x).argmax(1) == labels).float().mean()
    assert accuracy >= 0.9
    return network, x, planted, labels, cell
