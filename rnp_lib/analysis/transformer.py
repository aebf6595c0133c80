"""Programs as features for scikit-learn: images in, codes out."""

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from rnp_lib import checkpoints
from rnp_lib.analysis import programs
from rnp_lib.model.rnp import ImageModel


class RNPTransformer(TransformerMixin, BaseEstimator):
    """The programs of images, by a trained model: that of the root, then those of its parts.

        make_pipeline(RNPTransformer("mnist"), LogisticRegression()).fit(images, labels)

    Nothing is fitted but the model read; images are as `model.parse` takes them, of its size.

    Args:
        model: a name in checkpoints/, a path, or a model.
        parts: whether the parts' codes follow the root's, in the order of their turns.
    """

    def __init__(self, model: str | ImageModel = "mnist", parts: bool = True):
        self.model = model
        self.parts = parts

    def fit(self, X, y=None) -> "RNPTransformer":
        """Read the model. Raises what `load` raises, and ValueError for images it cannot take."""
        given = isinstance(self.model, ImageModel)
        self.model_ = self.model if given else checkpoints.load(self.model)
        self.model_.images(X)
        return self

    def transform(self, X) -> np.ndarray:
        """Images (N, C, H, W) -> features (N, D), see `get_feature_names_out`."""
        check_is_fitted(self)
        x = self.model_.images(X)
        roots, _ = programs.posteriors(self.model_, x)
        features = [roots]
        if self._with_parts():
            features.append(programs.of_level(self.model_, x, self.model_.config.depth - 1))
        return np.concatenate([f.flatten(1).cpu().numpy() for f in features], 1)

    def get_feature_names_out(self, input_features=None) -> np.ndarray:
        """z_i of the root, then of each part: part1_z_i and so on, counted from 0."""
        check_is_fitted(self)
        c = self.model_.config
        of = ["", *(f"part{t + 1}_" for t in range(c.tau[0] if self._with_parts() else 0))]
        return np.array([f"{who}z_{i}" for who in of for i in range(c.z_dim)], dtype=object)

    def _with_parts(self) -> bool:
        return self.parts and self.model_.config.model == "rnp"

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False  # images
        tags.requires_fit = True
        return tags
