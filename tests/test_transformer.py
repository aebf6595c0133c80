"""A model as a transformer of scikit-learn."""

import numpy as np
import pytest
import tiny
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError, SkipTestWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator

import rnp_lib as rnp
from rnp_lib import checkpoints
from rnp_lib.model import build

IMAGES = torch.rand(12, 1, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=["root", "tree", "vae"])
def model(request):
    kind = {"model": "vae"} if request.param == "vae" else {"posterior": request.param}
    return build(tiny.config(**kind), seed=0).eval()


def test_features_are_the_codes_of_the_root_and_of_its_parts(model, tmp_path):
    path = tmp_path / "tiny.safetensors"
    checkpoints.save(path, model, {})
    model = checkpoints.load(path)
    tree, n_parts = model.parse(IMAGES), 0 if model.config.model == "vae" else 2
    expected = np.concatenate([tree.z, *(child.z for child in tree.children)], 1)
    for images in (IMAGES, IMAGES.numpy()):
        transformer = rnp.RNPTransformer(str(path))
        np.testing.assert_allclose(transformer.fit_transform(images), expected, atol=1e-5)
    names = transformer.get_feature_names_out()
    assert len(names) == expected.shape[1] == 8 * (1 + n_parts)
    assert list(names[:2]) == ["z_0", "z_1"]
    assert (names[-1] == "part2_z_7") == (n_parts > 0)
    roots = rnp.RNPTransformer(model, parts=False).fit(IMAGES)
    np.testing.assert_allclose(roots.transform(IMAGES), tree.z, atol=1e-5)
    assert len(roots.get_feature_names_out()) == 8


def test_it_is_one_of_scikit_learn_s(model):
    with pytest.warns(SkipTestWarning):  # which makes no images, and tries what needs none
        check_estimator(rnp.RNPTransformer(model))
    labels = np.arange(12) % 2
    pipeline = make_pipeline(rnp.RNPTransformer(model), LogisticRegression())
    assert pipeline.fit(IMAGES, labels).predict(IMAGES).shape == (12,)
    assert clone(pipeline[0]).parts


def test_what_it_cannot_take_is_a_sentence(model):
    transformer = rnp.RNPTransformer(model)
    with pytest.raises(NotFittedError):
        transformer.transform(IMAGES)
    with pytest.raises(ValueError, match="16"):
        transformer.fit(torch.rand(3, 1, 28, 28))
    with pytest.raises(FileNotFoundError, match="no checkpoint 'nothing'"):
        rnp.RNPTransformer("nothing").fit(IMAGES)
