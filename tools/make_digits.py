"""Write the digits that the package embeds (needs scikit-learn): python tools/make_digits.py"""

from pathlib import Path

import numpy as np
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as Pillow
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

FOLDER = Path(__file__).resolve().parent.parent / "src" / "eqprop" / "datasets" / "digits"
FEATURES = Features({"image": Image(), "label": ClassLabel(names=[str(digit) for digit in range(10)])})


def main() -> None:
    digits = load_digits()
    pixels = np.round(digits.images * 255 / 16).astype(np.uint8)
    sides = train_test_split(
        np.arange(len(pixels)), test_size=360, stratify=digits.target, random_state=0, shuffle=True
    )
    for split, rows in zip(("train", "test"), map(np.sort, sides), strict=True):
        columns = {"image": [Pillow.fromarray(image) for image in pixels[rows]], "label": digits.target[rows]}
        Dataset.from_dict(columns, features=FEATURES).to_parquet(FOLDER / f"{split}.parquet")


if __name__ == "__main__":
    main()
