"""Images whose labels are mixed up with those of a neighbouring class, and a small convolutional network."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

import expunge as ex

from .data import FIRST_SEED
from .training import Recipe, Task

LETTERS = "ABCDEFGHIJ"
TESTS = 450
FLIPPED = 0.35  # of the labels of each class
DECAY = 1e-4


class CNN(nn.Module):
    """Logits (n, K) of images (n, 1, h, w)."""

    def __init__(self, classes, side, width=16):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
        )
        self.head = nn.Sequential(
            nn.Linear(2 * width * (side // 4) ** 2, 64), nn.ReLU(), nn.Linear(64, classes)
        )

    def forward(self, X):
        return self.head(self.features(X))


def digits():
    """scikit-learn's 1,797 digits, 8 x 8."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(FIRST_SEED).permutation(len(images))
    of_test = np.arange(len(images)) >= len(images) - TESTS
    return parted(images[order].reshape(-1, 8, 8) / 16.0, labels[order], of_test)


def glyphs(count=2400, side=16):
    """Letters A to J in the fonts of matplotlib, moved, turned and noisy; other fonts are for tests."""
    from PIL import Image, ImageDraw, ImageFont

    rng = np.random.default_rng(FIRST_SEED)
    fonts = latin_fonts()
    images, labels, of_test = [], [], []
    for _ in range(int(1.25 * count)):
        which, letter = rng.integers(len(fonts)), rng.integers(len(LETTERS))
        page = Image.new("L", (4 * side, 4 * side))
        font = ImageFont.truetype(str(fonts[which]), int(rng.integers(2 * side, 3 * side)))
        place = tuple(2 * side + rng.integers(-side // 3, side // 3 + 1, size=2))
        ImageDraw.Draw(page).text(place, LETTERS[letter], fill=255, font=font, anchor="mm")
        page = page.rotate(rng.uniform(-15, 15)).resize((side, side), Image.Resampling.BOX)
        noisy = np.asarray(page) / 255.0 + rng.normal(0.0, 0.2, size=(side, side))
        images.append(noisy)
        labels.append(letter)
        of_test.append(which % 4 == 3)
    return parted(np.array(images), np.array(labels), np.array(of_test))


def latin_fonts():
    """Files of fonts that hold plain letters."""
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    names = [
        path for path in sorted(folder.glob("*.ttf")) if path.name.startswith(("DejaVu", "STIXGeneral", "cm"))
    ]
    return [path for path in names if not path.name.startswith(("cmex", "cmsy", "cmmi"))]


def image_folder(path, side=28):
    """Grey images of side x side from path/CLASS/*.png, .jpg, .bmp, ...; every fifth file is for tests."""
    from PIL import Image, UnidentifiedImageError

    classes = sorted(entry for entry in Path(path).iterdir() if entry.is_dir())
    images, labels, of_test = [], [], []
    for label, folder in enumerate(classes):
        for number, file in enumerate(sorted(folder.iterdir())):
            try:
                with Image.open(file) as image:
                    images.append(np.asarray(image.convert("L").resize((side, side))) / 255.0)
            except UnidentifiedImageError:
                continue
            labels.append(label)
            of_test.append(number % 5 == 4)
    if len(classes) < 2 or not images:
        raise SystemExit(f"{path}: expected one folder of images for each of at least two classes")
    order = np.random.default_rng(FIRST_SEED).permutation(len(images))
    return parted(*(np.array(part)[order] for part in (images, labels, of_test)))


def parted(images, labels, of_test):
    return (images[~of_test], labels[~of_test]), (images[of_test], labels[of_test])


def poisoned(name, data, seed, epochs, batch=32, rate=2e-3):
    """The task: 35 % of the labels of every class were those of its neighbour, and are corrected."""
    (images, labels), test = data
    classes, side = int(labels.max()) + 1, images.shape[-1]
    chosen = np.random.default_rng(seed).random(len(labels)) < FLIPPED
    neighbour = np.minimum(labels ^ 1, classes - 1)
    wrong = np.where(chosen, neighbour, labels)
    X, y_wrong, y = as_images(images), torch.tensor(wrong), torch.tensor(labels)
    touched = torch.tensor(np.flatnonzero(wrong != labels))
    return Task(
        name=name,
        build=lambda: CNN(classes, side),
        recipe=Recipe(epochs, batch, rate, DECAY),
        data=(X, y_wrong),
        corrected=(X, y),
        touched=touched,
        test=(as_images(test[0]), torch.tensor(test[1])),
        request=lambda networks, method: ex.CorrectLabels(touched.numpy(), y[touched].numpy()),
    )


def as_images(images):
    return torch.tensor(images, dtype=torch.float32)[:, None]
