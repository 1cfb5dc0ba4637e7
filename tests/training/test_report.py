"""What an epoch leaves behind, where there is little to show."""

from eqprop.training.report import Files


def test_curves_of_a_network_that_has_no_residual(tmp_path):
    """Backpropagation's free phase is one pass. A warning would be an error here."""
    row = {"epoch": 1.0, "train_loss": 0.5, "train_accuracy": 0.9, "train_free_residual": 0.0}
    Files(tmp_path).epoch([row], 1)
    assert (tmp_path / "curves.png").stat().st_size > 1000
    assert (tmp_path / "metrics.csv").read_text().splitlines()[1].endswith("0.0")
