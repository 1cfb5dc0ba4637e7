"""What an epoch leaves behind, where there is little to show."""

from matplotlib.figure import Figure

from eqprop.training.report import Files, write_figure


def test_curves_of_a_network_that_has_no_residual(tmp_path):
    """Backpropagation's free phase is one pass. A warning would be an error here."""
    row = {"epoch": 1.0, "train_loss": 0.5, "train_accuracy": 0.9, "train_free_residual": 0.0}
    Files(tmp_path).epoch([row], 1)
    assert (tmp_path / "curves.png").stat().st_size > 1000
    assert (tmp_path / "metrics.csv").read_text().splitlines()[1].endswith("0.0")


def test_titles_are_whole_and_apart(tmp_path, monkeypatch):
    """A panel's title is longer than the panel is wide: it is broken, and ends within the picture."""
    drawn, save = [], Figure.savefig

    def keep(figure, *args, **how):
        drawn.append(figure)
        save(figure, *args, **how)

    monkeypatch.setattr(Figure, "savefig", keep)
    name = "its smooth version (sigmoids, soft pooling): layer1_layer2_of_a_long_name.weight"
    panels = {f"{name} {i}": None for i in range(2)}
    title = "a network of a long name, its best weights, a few images, and what is compared with what; " * 3
    write_figure(tmp_path / "titled.png", title, panels, lambda axes, panel: axes.plot([0, 1]), x="sweeps")
    (figure,) = drawn
    boxes = [axes.title.get_window_extent() for axes in figure.axes]
    assert boxes[0].x1 < boxes[1].x0
    for box in [*boxes, figure._suptitle.get_window_extent()]:
        assert 0 <= box.x0 < box.x1 <= figure.bbox.width
