"""MixUp and CutMix: shares, targets and pixels by hand, their distribution against SciPy's and torchvision's."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms import v2

from skinlesion.config.augmentation import Augmentation
from skinlesion.training.augmentation.mixing import Mixture, mix_batch
from skinlesion.training.augmentation.presets import NONE

MIXUP = NONE.model_copy(update={"mixup": 0.4, "mix_share": 1.0})
CUTMIX = NONE.model_copy(update={"cutmix": 1.0, "mix_share": 1.0})
LABELS = torch.tensor([4, 0, 6, 0])


def batch(side: int = 16) -> torch.Tensor:
    """Four images, each of one value: 1, 2, 3, 4."""
    return torch.arange(1.0, 5).view(4, 1, 1, 1).repeat(1, 3, side, side)


def mix(
    augmentation: Augmentation, images: torch.Tensor, labels: torch.Tensor, *, seed: int = 0, generator: Any = None
) -> Mixture:
    generator = generator or torch.Generator().manual_seed(seed)
    return mix_batch(images, labels, augmentation=augmentation, generator=generator, num_classes=7)


def shares_of(augmentation: Augmentation, number: int, side: int = 2) -> np.ndarray:
    """The share of an image's own in consecutive batches."""
    generator = torch.Generator().manual_seed(3)
    images, labels = torch.zeros(2, 3, side, side), torch.tensor([0, 1])
    return np.array([mix(augmentation, images, labels, generator=generator).share for _ in range(number)])


def test_mixup_by_hand() -> None:
    mixture = mix(MIXUP, batch(), LABELS)
    share = mixture.share
    assert 0 < share < 1
    own, partner = torch.tensor([1.0, 2, 3, 4]), torch.tensor([4.0, 1, 2, 3])  # the partner is the image before
    expected = (share * own + (1 - share) * partner).view(4, 1, 1, 1).expand(4, 3, 16, 16)
    torch.testing.assert_close(mixture.images, expected)
    targets = torch.zeros(4, 7)
    for row, (label, other) in enumerate([(4, 0), (0, 4), (6, 0), (0, 6)]):
        targets[row, label] += share
        targets[row, other] += 1 - share
    torch.testing.assert_close(mixture.targets, targets)
    assert mixture.targets.dtype == torch.float32


def test_cutmix_puts_one_rectangle_of_the_image_before_into_each() -> None:
    seen = set()
    for seed in range(40):
        mixture = mix(CUTMIX, batch(), LABELS, seed=seed)
        own, partner = batch(), batch().roll(1, 0)
        foreign = mixture.images[0, 0] == 4
        assert torch.equal(mixture.images, torch.where(foreign, partner, own))
        rows, columns = int(foreign.any(dim=1).sum()), int(foreign.any(dim=0).sum())
        assert int(foreign.sum()) == rows * columns
        assert mixture.share == pytest.approx(1 - rows * columns / 256)
        torch.testing.assert_close(mixture.targets[2], torch.tensor([1 - mixture.share, 0, 0, 0, 0, 0, mixture.share]))
        seen.add((rows, columns, bool(foreign[0].any()), bool(foreign[:, -1].any())))
    assert len(seen) > 20


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_lambda_of_mixup_is_a_beta_variable(alpha: float) -> None:
    shares = shares_of(MIXUP.model_copy(update={"mixup": alpha}), 3000)
    assert shares.mean() == pytest.approx(0.5, abs=0.03)
    assert shares.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.08)
    assert stats.kstest(shares, stats.beta(alpha, alpha).cdf).pvalue > 0.001


@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_the_area_of_cutmix_is_distributed_as_torchvisions(alpha: float) -> None:
    ours = shares_of(CUTMIX.model_copy(update={"cutmix": alpha}), 1500, side=64)
    reference = v2.CutMix(alpha=alpha, num_classes=2)
    torch.manual_seed(0)
    pair = torch.zeros(2, 3, 64, 64), torch.tensor([0, 1])
    theirs = np.array([float(reference(*pair)[1][0, 0]) for _ in range(1500)])
    assert ours.mean() == pytest.approx(theirs.mean(), abs=0.04)
    assert ours.std() == pytest.approx(theirs.std(), abs=0.03)


def test_a_tiny_alpha_hardly_mixes_and_stays_finite() -> None:
    shares = shares_of(MIXUP.model_copy(update={"mixup": 1e-6}), 200)
    assert np.isfinite(shares).all()
    assert (np.minimum(shares, 1 - shares) < 0.01).mean() > 0.95


@pytest.mark.parametrize("augmentation", [MIXUP, CUTMIX])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_share_of_the_batches_is_mixed(augmentation: Augmentation, share: float) -> None:
    shares = shares_of(augmentation.model_copy(update={"mix_share": share}), 600, side=32)
    assert (shares < 1).mean() == pytest.approx(share, abs=0.08)


def test_both_ways_take_turns() -> None:
    both = MIXUP.model_copy(update={"cutmix": 1.0})
    cut = 0
    for seed in range(300):
        values = mix(both, batch(), LABELS, seed=seed).images[0].unique()
        cut += bool(torch.isin(values, torch.tensor([1.0, 4.0])).all())
    assert 110 < cut < 190


@pytest.mark.parametrize(
    "case", [(MIXUP, 1), (CUTMIX, 1), (NONE, 4), (NONE.model_copy(update={"mix_share": 1.0}), 4)], ids=lambda case: str(case[1])
)
def test_what_is_not_mixed_keeps_its_pixels_and_its_label(case: tuple[Augmentation, int]) -> None:
    augmentation, length = case
    for seed in range(5):
        mixture = mix(augmentation, batch()[:length], LABELS[:length], seed=seed)
        assert torch.equal(mixture.images, batch()[:length]) and mixture.share == 1
        assert torch.equal(mixture.targets, torch.nn.functional.one_hot(LABELS[:length], 7).float())


@pytest.mark.parametrize("augmentation", [MIXUP, CUTMIX])
def test_the_generator_alone_decides(augmentation: Augmentation) -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    one, again, other = (mix(augmentation, batch(), LABELS, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), before[0]) and np.random.get_state()[1].tolist() == before[1]
    assert torch.equal(one.images, again.images) and torch.equal(one.targets, again.targets)
    assert not torch.equal(one.targets, other.targets)


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("augmentation", [MIXUP, CUTMIX])
def test_dtype_order_and_batch_stay(augmentation: Augmentation, dtype: torch.dtype, memory_format: torch.memory_format) -> None:
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)).to(dtype, memory_format=memory_format)
    before = images.clone()
    mixture, full = mix(augmentation, images, LABELS), mix(augmentation, images.float(), LABELS)
    assert torch.equal(images, before) and not torch.equal(mixture.images, images)
    assert mixture.images.is_contiguous(memory_format=memory_format)
    assert (mixture.images.dtype, mixture.targets.dtype) == (dtype, torch.float32)
    # the same draws; rounded once or twice to the precision, of numbers below 1
    torch.testing.assert_close(mixture.images.float(), full.images, atol=torch.finfo(dtype).eps, rtol=0)
    assert mixture.share == full.share
    assert torch.equal(mixture.targets, full.targets)
