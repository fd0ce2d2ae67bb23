"""Running statistics of batch norm: renewed over given batches as torch does it, and left alone by a pass."""

import copy

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from skinlesion.model.batch_norm import batch_norms, frozen_statistics, renewed_statistics


def statistics(norm: nn.BatchNorm1d) -> list[torch.Tensor]:
    return [tensor.clone() for tensor in (norm.running_mean, norm.running_var, norm.num_batches_tracked)]


def test_renewed_statistics_are_torchs_and_dropout_stays_off() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.0), nn.Linear(4, 2), nn.BatchNorm1d(2, momentum=0.3))
    batches = [torch.randn(8, 3), torch.randn(5, 3)]
    network(torch.randn(8, 3))  # to be forgotten
    reference = copy.deepcopy(network)
    update_bn(batches, reference)
    network[2].p = 0.5

    with renewed_statistics(network, batch_norms(network).values()), torch.no_grad():
        for batch in batches:
            network(batch)

    assert all(torch.equal(tensor, network.state_dict()[name]) for name, tensor in reference.state_dict().items())
    assert [norm.momentum for norm in batch_norms(network).values()] == [0.1, 0.3]
    assert not any(module.training for module in network.modules())


def test_norms_that_are_not_named_keep_their_statistics() -> None:
    network = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(3))
    before = statistics(network[0])

    with renewed_statistics(network, [network[1]]):
        network(torch.randn(8, 3))

    assert all(torch.equal(now, then) for now, then in zip(statistics(network[0]), before, strict=True))
    assert network[1].num_batches_tracked == 1


@pytest.mark.parametrize("momentum", [0.1, None])
def test_frozen_statistics_normalize_by_the_batch_and_remembers_nothing(momentum: float | None) -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, momentum=momentum))
    images = torch.randn(8, 3)
    before = statistics(network[1])

    with frozen_statistics(network):
        inside = network(images)

    assert all(torch.equal(now, then) for now, then in zip(statistics(network[1]), before, strict=True))
    assert torch.equal(inside, network(images))  # which is in training mode, by the batch
    assert not torch.equal(network[1].running_mean, before[0])
    assert network[1].num_batches_tracked == 1


def test_frozen_statistics_end_also_with_an_error_and_leave_evaluation_alone() -> None:
    norm, images = nn.BatchNorm1d(4).eval(), torch.randn(8, 4)
    with pytest.raises(RuntimeError), frozen_statistics(norm):
        assert torch.equal(norm(images), nn.BatchNorm1d(4).eval()(images))
        raise RuntimeError
    norm.train()(images)
    assert norm.num_batches_tracked == 1
