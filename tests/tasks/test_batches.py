"""Batches depend on the seed, the epoch and their index only, and parts of a set on the seed."""

import pytest
import torch
from hypothesis import given, settings, strategies as st
from pictures import equal, fake

from eqprop.errors import InputError
from eqprop.tasks import Batches, Crop, Flip, Images, Normalise
from eqprop.tasks.task import share_of

PLAIN = Normalise((0.0,), (1.0,))


def test_take():
    images = fake(20)
    taken = images.take(5, 3)
    rows = [bytes(each.flatten().numpy()) for each in images.pixels]
    places = [rows.index(bytes(each.flatten().numpy())) for each in taken.pixels]
    assert places == sorted(set(places)), "in their own order"
    assert torch.equal(taken.labels, images.labels[places])
    assert torch.equal(images.take(5, 3).pixels, taken.pixels)
    assert not torch.equal(images.take(5, 4).pixels, taken.pixels)
    for count in (0, -1, 21):
        with pytest.raises(InputError, match=f"{count} of 20"):
            images.take(count, 0)


@given(count=st.integers(2, 40), fraction=st.floats(0.05, 0.95), seed=st.integers(0, 2**40))
@settings(max_examples=30, deadline=None)
def test_a_split_parts_the_images(count, fraction, seed):
    images = Images(torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1), torch.zeros(count, dtype=torch.int64), 1)
    if not 0 < round(fraction * count) < count:
        with pytest.raises(InputError, match="one side empty"):
            images.split(fraction, seed)
        return
    first, second = images.split(fraction, seed)
    assert len(first) == round(fraction * count)
    assert sorted([*first.pixels.flatten().tolist(), *second.pixels.flatten().tolist()]) == list(range(count))
    assert torch.equal(images.split(fraction, seed)[0].pixels, first.pixels)


def test_splits_of_other_seeds_differ_and_nan_is_refused():
    images = fake(200)
    assert not torch.equal(images.split(0.5, 0)[0].pixels, images.split(0.5, 1)[0].pixels)
    with pytest.raises(InputError):
        images.split(float("nan"), 0)


SETTINGS = {
    "count": st.integers(1, 30),
    "batch_size": st.integers(1, 12),
    "seed": st.integers(0, 9),
    "shuffle": st.booleans(),
    "augment": st.sampled_from([(), (Flip(), Crop(2))]),
}


@given(**SETTINGS, keep_last=st.booleans(), number=st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_an_epoch_from_any_batch_on_is_the_tail_of_the_epoch(
    count, batch_size, seed, shuffle, augment, keep_last, number
):
    if count < batch_size:
        keep_last = True
    batches = Batches(fake(count), batch_size, PLAIN, augment, seed, shuffle, keep_last)
    whole = list(batches.epoch(number))
    assert len(whole) == batches.steps
    assert len(batches) == count
    assert sum(len(y) for _, y in whole) == (count if keep_last else count // batch_size * batch_size)
    for start in range(batches.steps + 1):
        assert equal(list(batches.epoch(number, start)), whole[start:])


@given(**SETTINGS, world=st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_the_shares_of_the_ranks_side_by_side_are_the_batch_of_one_process(
    count, batch_size, seed, shuffle, augment, world
):
    batches = Batches(fake(count), batch_size, PLAIN, augment, seed, shuffle)
    single = list(batches.epoch(1))
    ranks = list(zip(*(batches.epoch(1, rank=rank, world=world) for rank in range(world)), strict=True))
    assert len(ranks) == batches.steps
    for index, (shares, (x, y)) in enumerate(zip(ranks, single, strict=True)):
        counts = [part.stop - part.start for rank in range(world) for part in [share_of(len(y), rank, world)]]
        assert len(y) == batches.size(index) == sum(counts)
        assert [len(part) for _, part in shares] == [max(each, 1) for each in counts], "an example where it is empty"
        own = [share for share, each in zip(shares, counts, strict=True) if each]
        assert torch.equal(torch.cat([part for part, _ in own]), x)
        assert torch.equal(torch.cat([part for _, part in own]), y)


@pytest.mark.parametrize(
    "build",
    [
        lambda: Batches(fake(), 0, PLAIN),
        lambda: Batches(fake(3), 4, PLAIN, keep_last=False),
        lambda: Batches(fake(), 4, PLAIN).epoch(0, start=6),
        lambda: Batches(fake(), 4, PLAIN).epoch(0, start=-1),
        lambda: Batches(fake(), 4, PLAIN).epoch(0, rank=2, world=2),
        lambda: Batches(fake(), 4, PLAIN).epoch(0, rank=-1, world=2),
    ],
)
def test_numbers_that_do_not_fit_a_batch(build):
    with pytest.raises(InputError):
        build()


def test_an_epoch_holds_each_image_once_with_its_label():
    images = Images(torch.arange(200, dtype=torch.uint8).view(-1, 1, 1, 1), torch.arange(200), 200)
    for x, y in Batches(images, 64, PLAIN).epoch(0):
        assert torch.equal((x * 255).round().flatten().long(), y)
    seen = torch.cat([y for _, y in Batches(images, 64, PLAIN).epoch(0)])
    assert torch.equal(seen.sort().values, torch.arange(200))
    unshuffled = torch.cat([y for _, y in Batches(images, 64, PLAIN, shuffle=False).epoch(3)])
    assert torch.equal(unshuffled, torch.arange(200))


def test_epochs_batches_and_seeds_differ():
    images = Images(torch.arange(16, dtype=torch.uint8).expand(64, 1, 16, 16).contiguous(), torch.arange(64), 64)

    def drawn(seed, number):
        return list(Batches(images, 32, PLAIN, (Flip(), Crop(4)), seed).epoch(number))

    runs = [drawn(0, 0), drawn(0, 1), drawn(1, 0)]
    for one, other in [(0, 1), (0, 2), (1, 2)]:
        assert not torch.equal(runs[one][0][1], runs[other][0][1]), "another order"
        assert not torch.equal(runs[one][0][0], runs[other][0][0]), "other augmentation"
    assert not torch.equal(runs[0][0][0], runs[0][1][0]), "other augmentation in the next batch"


def test_batches_do_not_touch_the_global_generator():
    before = torch.get_rng_state()
    list(Batches(fake(), 4, PLAIN, (Flip(), Crop(2))).epoch(0))
    fake().split(0.5, 0)
    assert torch.equal(torch.get_rng_state(), before)
