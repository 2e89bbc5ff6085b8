"""Small classifiers for the tests, random or trained in a second."""

import torch
from torch import nn


class Pooled(nn.Module):
    """Convolutions, then average pooling and a linear head; ``dimensions`` 2 or 3."""

    def __init__(self, dimensions=2, channels=2, classes=3, width=8, inplace=False):
        super().__init__()
        conv = (nn.Conv2d, nn.Conv3d)[dimensions - 2]
        norm = (nn.BatchNorm2d, nn.BatchNorm3d)[dimensions - 2]
        self.body = nn.Sequential(
            conv(channels, width, 3, stride=2, padding=1),
            norm(width),
            nn.ReLU(inplace),
            conv(width, width, 3, padding=1),
        )
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        return self.head(self.body(x).flatten(2).mean(2))


def random_network(seed, **kwargs):
    """Random weights, and norms whose statistics are not the identity; in evaluation mode."""
    torch.manual_seed(seed)
    network = Pooled(**kwargs)
    norm = network.body[1]
    norm.running_mean.normal_(0, 0.2)
    norm.running_var.uniform_(0.5, 2)
    return network.eval()


def spots(n, seed, size=32):
    """Crops of two classes told by the stripes, lying or standing, of one 5 × 5 spot.

    Returns crops (n, 2, size, size), the deciding pixels (n, size, size), labels, and a disc around
    the spot that stands for the cell. Channel 0 is noise; a smooth bright decoy tells nothing.
    """
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (n,), generator=draw)
    x = 0.2 * torch.randn(n, 2, size, size, generator=draw)
    y, z = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    place = torch.randint(6, size - 6, (n, 2, 2), generator=draw)

    def far(k):
        return (y - place[:, k, 0, None, None]).abs(), (z - place[:, k, 1, None, None]).abs()

    dy, dz = far(0)
    planted = (dy <= 2) & (dz <= 2)
    along = torch.where(labels[:, None, None] == 0, dy, dz)
    x[:, 1] += 1.5 * planted * torch.where(along % 2 == 0, 1.0, -1.0)
    dy, dz = far(1)
    x[:, 1] += 1.5 * torch.exp(-(dy**2 + dz**2) / 30.0)
    dy, dz = far(0)
    cell = dy**2 + dz**2 <= 36
    return x, planted, labels, cell


def trained(x, labels, seed=0, steps=200):
    """A network that tells the classes apart."""
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Conv2d(x.shape[1], 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, stride=2, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 2),
    )
    optimiser = torch.optim.Adam(network.parameters(), 5e-3)
    for _ in range(steps):
        rows = torch.randint(len(x), (64,))
        loss = nn.functional.cross_entropy(network(x[rows]), labels[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return network.eval()
