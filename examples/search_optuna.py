"""A search over the learning rate and beta with Optuna: start it as often as you like, kill any of them, start again.

``python search_optuna.py 30`` works until the study has 30 finished trials. All workers on all machines share the file
``search.journal``, which needs no database; a worker that starts later goes on from what is there.
"""

import sys
from collections.abc import Iterator
from functools import cache, partial

import optuna
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

import eqprop as ep
from eqprop.tasks import Images, load_images

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
EPOCHS = 3


@cache
def data() -> tuple[Images, Images]:
    """Examples that choose the settings, and examples to train on. The test set has no part in a search."""
    held, train = load_images("digits").train.split(0.2, seed=0)
    return held, train.take(600, seed=0)


def accuracies(lr: float, beta: float) -> Iterator[float]:
    """Trains with these settings; yields the accuracy on the held-out examples after each epoch."""
    torch.manual_seed(0)
    held, train = data()
    layers = [ep.ConvLayer(16), ep.ConvLayer(32)]
    network = ep.chain((1, 8, 8), layers, partial(ep.ReadoutCrossEntropy, classes=10))
    settle = ep.EquilibriumPropagation(ep.symmetric(beta), free=ep.FixedSweeps(8), nudged=ep.FixedSweeps(4))
    model = ep.Equilibrium(network, settle, on_unsettled="ignore")
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(train)).split(16):
            optimizer.zero_grad()
            model.loss(train.pixels[rows] / 255, train.labels[rows]).backward()
            optimizer.step()
        with torch.no_grad():
            yield float((model(held.pixels / 255).argmax(1) == held.labels).float().mean())


def objective(trial: optuna.Trial) -> float:
    """One trial; a bad one ends early."""
    lr = trial.suggest_float("lr", 0.01, 1.0, log=True)
    beta = trial.suggest_float("beta", 0.05, 2.0, log=True)
    accuracy = 0.0
    for epoch, accuracy in enumerate(accuracies(lr, beta)):
        trial.report(accuracy, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
    return accuracy


def main(trials: int = 8, file: str = "search.journal", seed: int | None = None) -> float:
    """Works on the study in ``file`` until it has this many finished trials. Returns the best accuracy.

    ``seed`` is of the search; several workers of one seed would ask for the same settings.
    """
    torch.set_num_threads(1)  # each worker has a core
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(file)),
        study_name="digits",
        load_if_exists=True,
        direction="maximize",
        sampler=optuna.samplers.TPESampler(n_startup_trials=4, seed=seed),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=1),
    )
    if len(study.get_trials(states=FINISHED)) < trials:
        study.optimize(objective, callbacks=[optuna.study.MaxTrialsCallback(trials, states=FINISHED)])
    return study.best_value


if __name__ == "__main__":
    print(f"best validation accuracy {100 * main(*map(int, sys.argv[1:2])):.1f} %")
