"""The explorer without a browser: states, views, what is kept, and the page's events."""

import hashlib
import io
import json
import re
import threading
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from rnp_lib import checkpoints, cli, data, plots
from rnp_lib.explorer import edits, keep, maps, states, trees, views
from rnp_lib.explorer.app import PAGE, Explorer, model_names, script
from rnp_lib.explorer.states import (
    GivenProgram,
    History,
    Picture,
    Sample,
    State,
    TestImage,
    opened,
)
from rnp_lib.explorer.trees import edited
from rnp_lib.files import ROOT
from rnp_lib.model import build
from rnp_lib.model.rnp import RNP
from rnp_lib.model.tree import ProgramTree

DIGIT = [[(0.3, 0.2), (0.7, 0.2), (0.4, 0.9)]]


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A state of an untrained model with a map of its own, on generated strokes."""
    path = tmp_path_factory.mktemp("models") / "tiny.safetensors"
    torch.manual_seed(1)
    model = RNP(tiny.config(dataset="strokes"))
    checkpoints.save(path, model, {})
    maps.make(path, n=40)
    return State(model=str(path), dataset="strokes", source=TestImage(3))


@pytest.fixture(scope="module")
def chancy(tmp_path_factory):
    """The same with posterior "tree": an image tells something about every part."""
    path = tmp_path_factory.mktemp("models") / "chancy.safetensors"
    torch.manual_seed(1)
    model = RNP(tiny.config(dataset="strokes", posterior="tree"))
    for layers in (model.reader.where_layers, model.reader.what_layers):
        layers[-1].weight.data *= 20  # as after training, messages are far from predictions
    checkpoints.save(path, model, {})
    maps.make(path, n=40)
    return State(model=str(path), dataset="strokes", source=TestImage(3))


@pytest.fixture
def app(start):
    return Explorer(start)


def pictures(view):
    return {node.path: node.picture for node in view.nodes}


def redrawn(before, after):
    old, new = pictures(before), pictures(after)
    return {path for path in old if not np.array_equal(old[path], new.get(path))}


def all_edits(start):
    """A state after one edit of each kind."""
    other = replace(start, source=Sample(5, 0.7))
    state = edited(start, "move", (0,), rotation=0.5, centre_x=-0.25)
    state = edited(state, "steer", (1,), direction=2, to=1.5)
    state = edited(state, "steer", (1, 0), direction=0, to=-2.0)
    state = edited(state, "duplicate", (0,))
    state = edited(state, "resample", (0,), seed=3, temperature=0.8)
    state = edited(state, "swap", (0,), other=(1,))
    donor = edited(other, "move", (0,), shear=1)
    state = edited(state, "transplant", (2,), donor=donor, donor_path=(0,))
    return edited(state, "hide", (1,), hidden=True)


# States and views


def test_a_view_has_every_picture_and_where_it_lies(start):
    view = views.render(start)
    assert list(pictures(view)) == [(), (0,), (0, 0), (0, 1), (1,), (1, 0), (1, 1)]
    assert [node.level for node in view.nodes] == [2, 1, 0, 0, 1, 0, 0]
    tree, x = trees.tree(start), trees.images(start)[0][3:4]
    assert view.error == pytest.approx(float((tree.canvas - x).square().sum()))
    assert view.blank == pytest.approx(float(x.square().sum()))
    expected = (plots.coloured(tree.parts)[0] * 255).round()
    np.testing.assert_array_equal(view.nodes[0].picture, expected)
    np.testing.assert_array_equal(view.image, (plots.grey(x)[0] * 255).round())
    for node in view.nodes:
        assert node.picture.dtype == np.uint8
        if node.path:
            child = tree.at(node.path)
            np.testing.assert_allclose(node.window, plots.corners(child.affine[0]), atol=1e-6)
    assert view.nodes[0].window is None
    grandchild, child = (tree.at(path).affine[0] for path in ((1, 0), (1,)))
    middle = child[:, :2] @ grandchild[:, 2] + child[:, 2]
    np.testing.assert_allclose(2 * np.mean(view.nodes[5].outline, 0) - 1, middle, atol=1e-5)


def test_a_view_is_pure(start):
    state = all_edits(start)
    first = views.render(state)
    trees._tree.cache_clear()
    second = views.render(state)
    assert not redrawn(first, second)
    assert (first.error, first.action, first.code) == (second.error, second.action, second.code)


def test_only_the_subtree_is_redrawn(start):
    before = views.render(start)
    moved = views.render(edited(start, "move", (1, 0), rotation=0.9))
    assert redrawn(before, moved) <= {(), (1,)}
    steered = views.render(edited(start, "steer", (1,), direction=0, to=3.0))
    assert {(), (1,)} <= redrawn(before, steered) <= {(), (1,), (1, 0), (1, 1)}


def test_sliders_are_those_of_the_selected_program(start):
    whole, part = views.render(start), views.render(replace(start, selected=(1,)))
    assert whole.action == {}
    assert list(part.action) == list(edits.ACTION)
    assert len(whole.code) == len(part.code) == 6
    to = edited(replace(start, selected=(1,)), "steer", (1,), direction=4, to=1.25)
    assert views.render(to).code[4] == pytest.approx(1.25, abs=1e-4)


def test_sources(start):
    drawn = replace(start, source=Picture(bytes(range(256))))
    assert views.render(drawn).blank > 0
    for source in (Sample(1), GivenProgram((0.5,) * 8, 1)):
        view = views.render(replace(start, source=source))
        assert view.error is view.blank is view.image is None
    assert len(view.nodes) == 3  # a part by itself
    cold = views.render(replace(start, source=Sample(1, 0.0)))
    assert not redrawn(cold, views.render(replace(start, source=Sample(2, 0.0))))


def test_the_same_slider_replaces_its_edit_and_history_goes_back_and_forth(start):
    one = edited(start, "move", (0,), rotation=0.1)
    two = edited(one, "move", (0,), again=True, rotation=0.2)
    assert len(two.edits) == 1
    history = History(start).then(one).then(two, merge=True).then(replace(two, selected=(0,)))
    back = history.undo()
    assert back.now == two
    assert back.undo().now == start
    assert back.undo().redo().redo().now == history.now
    assert back.then(one).future == ()
    for end, words in ((History(start).undo, "nothing to undo"), (history.redo, "nothing to redo")):
        with pytest.raises(ValueError, match=words):
            end()


def test_what_cannot_be_done_is_one_sentence(start):
    for call, words in (
        (lambda: edited(start, "paint", ()), "got 'paint'"),
        (lambda: edited(start, "move", (9,), rotation=0), "no program at"),
        (lambda: edited(start, "steer", (), direction=6, to=0), "6 directions: got 6"),
        (lambda: views.render(replace(start, source=TestImage(2_000))), "0 to 1,999: got 2,000"),
        (lambda: views.render(replace(start, source=Picture(b"123"))), "another model"),
        (
            lambda: edited(start, "transplant", (0,), donor=State(), donor_path=(0,)),
            "cannot be drawn by",
        ),
    ):
        with pytest.raises(ValueError, match=words):
            call()
    state = start
    for _ in range(states.MOST_EDITS):
        state = edited(state, "hide", (0,), hidden=True)
    with pytest.raises(ValueError, match="100 edits"):
        edited(state, "hide", (0,), hidden=True)
    trees._tree.cache_clear()
    trees.tree(state)  # deep, but not too deep


# What the parent predicts, and what the image tells


def nats(view):
    return {node.path: node.nats for node in view.nodes}


def test_an_image_tells_nats_about_every_program_but_leaves(chancy):
    tree, found = trees.tree(chancy), nats(views.render(chancy))
    for path, node in edits.walk(tree):
        assert found[path] == (node.kl.item() if node.children else None)
    assert all(found[path] > 0 for path in ((), (0,), (1,)))
    drawn = replace(chancy, source=Picture(bytes(range(256))))
    assert nats(views.render(drawn))[(0,)] > 0
    moved = nats(views.render(edited(chancy, "move", (0,), rotation=0.5)))
    assert moved == found | {(0,): None}


def test_nothing_is_told_where_no_image_corrects(start, chancy):
    dreams = [replace(chancy, source=s) for s in (Sample(1), GivenProgram((0.5,) * 8, 1))]
    for state in (start, replace(start, source=Sample(1)), *dreams):
        view = views.render(replace(state, predicted=True))
        assert view.predicted is None
        assert set(nats(view).values()) == {None}
        assert not redrawn(view, views.render(state))  # it makes no difference


def test_predicted_is_what_the_root_alone_says(chancy):
    corrected, predicted = chancy, replace(chancy, predicted=True)
    model, x = trees.model(chancy.model), trees.image(chancy)
    for state, expected in (
        (corrected, model.parse(x)),
        (predicted, model.decode(model.encode(x).mean)),
    ):
        for a, b in zip(tensors(trees.tree(state)), tensors(expected), strict=True):
            assert torch.equal(a, b)
    before, after = views.render(corrected), views.render(predicted)
    assert (before.predicted, after.predicted) == (False, True)
    assert set(nats(after).values()) == {None}
    assert {(), (0,), (1,)} <= redrawn(before, after)
    np.testing.assert_array_equal(before.image, after.image)
    error = (trees.tree(predicted).canvas - x).square().sum().item()
    assert after.error == pytest.approx(error)
    # Edits are made on either, and other images are shown as this one is.
    turned = trees.edited(predicted, "move", (0,), rotation=0.5)
    assert redrawn(after, views.render(turned)) == {()}
    assert redrawn(views.render(turned), views.render(replace(turned, predicted=False)))
    assert states.opened(turned, TestImage(5)) == replace(predicted, source=TestImage(5))


def test_programs_of_the_map_are_as_their_images_corrected_them(chancy):
    predicted = replace(chancy, predicted=True)
    assert views.at_point(predicted, 47) == views.at_point(chancy, 47)
    model, found = trees.model(chancy.model), maps.map_of(chancy.model)
    index, path = found.program(47)
    x = data.load("strokes", "test", 16)[0][index : index + 1]
    assert torch.equal(views.point(predicted, 47).z, model.parse(x).at(path).z)


def test_the_page_switches_between_predicted_and_corrected(app, chancy):
    answer, _ = app.handle({"do": "predict", "predicted": True})  # of a model with posterior root
    assert answer["error"].startswith("Only a model with posterior=tree")
    assert not app.state.predicted
    app = Explorer(chancy)
    answer, _ = app.handle({"do": "hello"})
    assert answer["view"]["predicted"] is False
    assert answer["view"]["posterior"] == "tree"
    assert answer["view"]["nodes"][1]["nats"] > 0
    app.handle({"do": "select", "path": [1]})
    app.handle({"do": "edit", "what": "move", "path": [0], "arguments": {"rotation": 0.5}})
    answer, _ = app.handle({"do": "predict", "predicted": True})
    assert answer["error"] == ""
    assert answer["view"]["predicted"] is True
    assert (answer["view"]["edits"], answer["view"]["selected"]) == (1, (1,))
    steps = len(app.history.past)
    app.handle({"do": "predict", "predicted": True})
    assert len(app.history.past) == steps  # nothing changed
    app.handle({"do": "undo"})
    assert not app.state.predicted
    app.handle({"do": "redo"})
    assert app.state.predicted
    app.handle({"do": "reset"})
    assert app.state == replace(chancy, predicted=True)
    app.handle({"do": "sample", "seed": 1, "temperature": 1})
    answer, _ = app.handle({"do": "predict", "predicted": False})
    assert answer["error"].startswith("Only a model with posterior=tree, of an image")


def test_the_page_knows_what_is_resampled_from_what(start, chancy):
    def source(state, path):
        return views.render(replace(state, selected=path)).drawn_from

    assert [source(start, path) for path in ((), (0,), (0, 1))] == ["root", "dream", "dream"]
    assert [source(chancy, path) for path in ((), (0,), (0, 1))] == ["root", "parent", "dream"]
    new = edited(chancy, "resample", (0,), seed=3, temperature=0.8)
    model = trees.model(chancy.model)
    expected = model.resample(trees.tree(chancy), (0,), 3, 0.8)
    assert torch.equal(trees.tree(new).canvas, expected.canvas)
    hints = re.search(r"RESAMPLES = \{(.*?)\};", script(), re.DOTALL)[1]
    assert re.findall(r"^  (\w+):", hints, re.MULTILINE) == ["root", "parent", "dream"]


def test_states_from_before_there_was_a_choice_are_corrected(chancy):
    older = {k: v for k, v in vars(chancy).items() if k != "predicted"}
    assert State(**older) == chancy
    assert not State(**older).predicted


# Kept


def tensors(tree):
    found = []
    tree.map(lambda tensor: found.append(tensor) or tensor)
    return found


SOURCES = [TestImage(3), Sample(2, 0.9), Picture(bytes(range(256)))]


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: type(source).__name__)
@pytest.mark.parametrize("kind", ["root", "corrected", "predicted"])
def test_the_code_makes_the_same_tree(start, chancy, source, kind):
    start = start if kind == "root" else replace(chancy, predicted=kind == "predicted")
    for state in (replace(start, source=source), all_edits(replace(start, source=source))):
        names = {}
        grad = torch.is_grad_enabled()
        try:
            exec(keep.code(state), names)
        finally:
            torch.set_grad_enabled(grad)
        for a, b in zip(tensors(names["tree"]), tensors(trees.tree(state)), strict=True):
            assert torch.equal(a, b)


def test_the_code_of_a_program_given_by_its_numbers(start):
    state = replace(start, source=GivenProgram((1 / 3,) * 8, 1))
    names = {}
    with torch.no_grad():
        exec(keep.code(state).replace("torch.set_grad_enabled(False)", ""), names)
    assert torch.equal(names["tree"].canvas, trees.tree(state).canvas)


def test_a_model_in_colour(start, tmp_path):
    torch.manual_seed(1)
    path = tmp_path / "colour.safetensors"
    checkpoints.save(path, RNP(tiny.config(dataset="strokes", posterior="tree", channels=3)), {})
    maps.make(path, n=40)
    app = Explorer(State(model=str(path), dataset="strokes", source=TestImage(3)))
    tree, x = trees.tree(app.state), trees.image(app.state)
    assert x.shape == (1, 3, 16, 16)
    shown, view = pictures(views.render(app.state)), views.render(app.state)
    np.testing.assert_array_equal(view.image, (x[0].movedim(0, -1) * 255).round())
    leaf = (tree.paper + tree.at((0, 1)).canvas)[0].clamp(0, 1).movedim(0, -1)
    np.testing.assert_array_equal(shown[0, 1], (leaf * 255).round())
    assert view.blank == pytest.approx(float((x - tree.paper).square().sum()), rel=1e-5)
    hidden = edited(app.state, "hide", (0,), hidden=True)
    torch.testing.assert_close(trees.tree(hidden).canvas, tree.paper + tree.parts[:, 1])
    for event in ({"do": "draw", "strokes": DIGIT}, {"do": "pick", "index": 5}):
        assert app.handle(event)[0]["error"] == ""
        names = {}
        with torch.no_grad():
            exec(keep.code(app.state).replace("torch.set_grad_enabled(False)", ""), names)
        assert torch.equal(names["tree"].canvas, trees.tree(app.state).canvas)
    content = keep.export(start, "json")
    answer, _ = app.handle({"do": "upload", "size": len(content)}, [content])
    assert "16 pixels a side in colour" in answer["error"]


@pytest.mark.parametrize("predicted", [False, True])
def test_json_keeps_what_the_image_told(chancy, predicted):
    state = replace(chancy, predicted=predicted)
    copy = ProgramTree.from_json(keep.export(state, "json").decode())
    for a, b in zip(tensors(copy), tensors(trees.tree(state)), strict=True):
        assert torch.equal(a, b)
    assert [node.kl is None for _, node in edits.walk(copy)] == [
        found is None for found in nats(views.render(state)).values()
    ]


def test_a_saved_tree_can_be_opened_again(start, chancy, tmp_path, monkeypatch):
    state = all_edits(start)
    content = keep.export(state, "json")
    app = Explorer(start)
    answer, _ = app.handle({"do": "upload", "size": len(content)}, [content])
    assert answer["error"] == ""
    assert answer["view"]["source"]["kind"] == "Saved"
    assert answer["view"]["image"] is None
    for a, b in zip(tensors(trees.tree(app.state)), tensors(trees.tree(state)), strict=True):
        assert torch.equal(a, b)
    assert History.taken_up(app.history.kept()).now == app.state
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tree.json").write_bytes(content)
    names = {}
    with torch.no_grad():
        exec(keep.code(app.state).replace("torch.set_grad_enabled(False)", ""), names)
    assert torch.equal(names["tree"].canvas, trees.tree(state).canvas)
    moved = {"do": "edit", "what": "move", "path": [0], "arguments": {"rotation": 0.5}}
    assert app.handle(moved)[0]["error"] == ""

    other = replace(chancy, source=Sample(1))
    part = trees.tree(other).children[0].to_json().encode()
    for bad, word in ((b"{}", "no tree"), (part, "of another kind")):
        before = app.history
        answer, _ = app.handle({"do": "upload", "size": len(bad)}, [bad])
        assert word in answer["error"]
        assert app.history == before


def test_files(start):
    state = all_edits(start)
    copy = ProgramTree.from_json(keep.export(state, "json").decode())
    for a, b in zip(tensors(copy), tensors(trees.tree(state)), strict=True):
        assert torch.equal(a, b)
    svg = ET.fromstring(keep.export(state, "svg"))
    kinds = [element.tag.rpartition("}")[2] for element in svg.iter()]
    assert kinds.count("image") == len(views.render(state).nodes) + 1  # and what was parsed
    assert kinds.count("path") > len(views.render(state).nodes)
    assert keep.export(state, "svg") == keep.export(state, "svg")
    with Image.open(io.BytesIO(keep.export(state, "png"))) as image:
        assert min(image.size) > 300
    shown = trees.edited(state, "hide", (1,), hidden=False)
    assert keep.export(shown, "svg") != keep.export(state, "svg")
    with pytest.raises(ValueError, match="got 'gif'"):
        keep.export(state, "gif")


def test_models_without_programs_are_not_offered_and_refused(tmp_path):
    assert {"mnist", "omniglot", "fashion", "scenes"} <= set(model_names())
    assert not any(name.startswith(("map-", "classifier-", "vae-")) for name in model_names())
    path = tmp_path / "vae.safetensors"
    checkpoints.save(path, build(tiny.config(model="vae")), {})
    with pytest.raises(ValueError, match="no programs to explore"):
        trees.model(str(path))
    with pytest.raises(ValueError, match="no programs to map"):
        maps.make(path)


# Maps


def test_a_map_has_every_image_as_a_whole_and_by_a_part(start):
    found = maps.map_of(start.model)
    assert found.at.shape == (80, 2)
    assert found.at.min() == 0
    assert found.at.max() == 1
    images, labels = data.load("strokes", "test", 16)
    assert torch.equal(labels[found.index], found.label)
    model = trees.model(start.model)
    k = 7
    tree = model.parse(images[found.index[k] : found.index[k] + 1])
    assert torch.equal(views.point(start, k).z, tree.z)
    assert torch.equal(views.point(start, 40 + k).z, tree.children[found.turn[k]].z)
    roots = model.parse(images[found.index]).z
    torch.testing.assert_close(found.mean[2], roots.mean(0), atol=1e-5, rtol=1e-4)
    along = edits.coordinates(roots, found.directions[2], found.mean[2])
    torch.testing.assert_close(along.std(0), torch.ones(6), atol=1e-3, rtol=1e-3)
    with pytest.raises(ValueError, match="points 0 to 79: got 80"):
        found.program(80)


def test_a_strip_leads_from_one_program_to_another(start):
    strip = views.strip(start, 42, 47)
    ends = [np.float32(strip[i][0].z) for i in (0, -1)]
    for end, point in zip(ends, (42, 47), strict=True):
        np.testing.assert_allclose(end, views.point(start, point).z[0], atol=1e-6)
    opened = states.opened(start, strip[4][0])
    shown = views.render(opened).nodes[0].picture
    assert np.abs(shown.astype(int) - strip[4][1]).max() <= 1
    with pytest.raises(ValueError, match="two programs of one level"):
        views.strip(start, 2, 47)


def test_a_map_of_another_version_of_the_model_is_refused(start, tmp_path):
    path = tmp_path / "new.safetensors"
    checkpoints.save(path, RNP(tiny.config(dataset="strokes")), {})
    with pytest.raises(FileNotFoundError, match=r"no map of .* yet: `rnp map .*` makes it"):
        maps.map_of(path)
    maps.path_of(path).write_bytes(maps.path_of(start.model).read_bytes())
    with pytest.raises(checkpoints.CheckpointError, match="map of another version of .*anew"):
        maps.map_of(path)
    state = replace(start, model=str(path))
    assert views.render(state).code == ()  # all but the map and its sliders still works
    app = Explorer(state)
    answer, _ = app.handle({"do": "map"})
    assert "another version" in answer["error"]


@pytest.mark.parametrize("name", ["mnist", "fashion", "omniglot", "scenes"])
def test_committed_maps_are_small_and_of_the_committed_models(name):
    assert maps.map_of(name).at.shape == (2_000, 2)
    assert maps.path_of(name).stat().st_size < 50_000


def test_the_command_makes_a_map(monkeypatch, capsys, start):
    made = []
    monkeypatch.setattr(maps, "make", lambda name: made.append(name) or maps.path_of(start.model))
    monkeypatch.setattr("sys.argv", ["rnp", "map", "some"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert (end.value.code, made) == (0, ["some"])
    assert capsys.readouterr().out.strip().endswith("map-tiny.safetensors")


# The page's events


def test_a_stroke_a_slider_and_undo(app):
    answer, (packed,) = app.handle({"do": "hello"})
    assert answer["view"]["dataset"] == "strokes"
    first = app.view
    app.handle({"do": "draw", "strokes": DIGIT})
    drawn = app.view
    assert app.error == ""
    assert isinstance(app.state.source, Picture)
    assert (drawn.image != first.image).any()
    for to in (0.1, 0.2, 0.3):  # one gesture
        move = {"what": "move", "path": [0], "arguments": {"rotation": to}, "gesture": "a"}
        answer, (packed,) = app.handle({"do": "edit", **move})
    assert [edit.arguments for edit in app.state.edits] == [(("rotation", 0.3),)]
    turned = app.view
    assert redrawn(drawn, turned) == {()}
    start, height, width = answer["view"]["nodes"][0]["picture"]
    shown = np.frombuffer(packed, np.uint8)[start : start + 3 * height * width]
    np.testing.assert_array_equal(shown.reshape(height, width, 3), turned.nodes[0].picture)
    app.handle({"do": "undo"})
    assert not redrawn(drawn, app.view)
    app.handle({"do": "redo"})
    assert not redrawn(turned, app.view)
    app.handle({"do": "reset"})
    assert app.state.edits == ()


def test_every_event_answers(app, start):
    for event, expected in (
        ({"do": "pick", "index": 4}, "view"),
        ({"do": "select", "path": [1]}, "view"),
        ({"do": "copy", "path": [1]}, "copied"),
        ({"do": "sample", "seed": 2, "temperature": 0.5}, "view"),
        ({"do": "paste", "path": [0]}, "view"),
        ({"do": "map"}, "map"),
        ({"do": "peek", "point": 50}, "peek"),
        ({"do": "open", "point": 50}, "view"),
        ({"do": "line", "a": 1, "b": 2}, "strip"),
        ({"do": "step", "index": 3}, "view"),
        ({"do": "colours", "name": "colour-blind"}, "view"),
        ({"do": "dataset", "name": "strokes"}, "view"),
        ({"do": "model", "name": start.model}, "view"),
        ({"do": "code"}, "text"),
        ({"do": "save", "kind": "json"}, "file"),
    ):
        answer, _ = app.handle(event)
        assert answer["error"] == "", event
        assert expected in answer, event


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ({}, "knows no event None"),
        ({"do": "__init__"}, "knows no event"),
        ({"do": "draw", "strokes": []}, "Nothing is drawn yet"),
        ({"do": "draw"}, "'draw' cannot be understood"),
        ({"do": "edit", "what": "move"}, "'edit' cannot be understood"),
        ({"do": "edit", "what": [], "path": 3, "arguments": 4}, "'edit' cannot be understood"),
        ({"do": "pick", "index": -1}, "0 to 1,999: got -1"),
        ({"do": "pick", "index": "x"}, "invalid literal"),
        ({"do": "upload", "size": 10**9}, "1000.0 MB: choose one of 5 MB or less"),
        ({"do": "sample", "seed": -1, "temperature": 1}, "a seed is"),
        ({"do": "sample", "seed": 0, "temperature": float("nan")}, "a temperature is"),
        ({"do": "model", "name": "nothing"}, "no checkpoint 'nothing'"),
        ({"do": "dataset", "name": "nothing"}, "neither one of"),
        ({"do": "colours", "name": "none"}, "Colours are one of"),
        ({"do": "select", "path": [5]}, "there is no program at"),
        ({"do": "paste", "path": [0]}, "nothing is copied yet"),
        ({"do": "step", "index": 0}, "strip is gone"),
        ({"do": "undo"}, "nothing to undo"),
        ({"do": "save", "kind": "exe"}, "png, svg, json"),
        ({"do": "edit", "what": "move", "path": [0], "arguments": {"shear": 7}}, "from -1 to 1"),
    ],
)
def test_bad_events_are_one_sentence_and_change_nothing(app, event, words):
    before = app.history
    answer, _ = app.handle(event)
    assert re.search(words, answer["error"], re.IGNORECASE)
    assert "\n" not in answer["error"]
    assert answer["error"] == app.error
    assert app.history == before


def test_a_new_page_takes_up_what_the_last_one_did(app, start):
    app.handle({"do": "draw", "strokes": DIGIT})
    app.handle({"do": "copy", "path": [1]})
    app.handle({"do": "pick", "index": 4})
    app.handle({"do": "paste", "path": [0]})
    app.handle({"do": "sample", "seed": 2, "temperature": 0.5})
    answer, _ = app.handle({"do": "undo"})
    json.dumps(answer)  # as it is sent
    again = Explorer(start)
    there, _ = again.handle({"do": "hello", "kept": answer["kept"]})
    assert again.error == ""
    assert again.state == app.state
    assert again.history.past == app.history.past
    assert there["view"]["nodes"] == answer["view"]["nodes"]
    again.handle({"do": "undo"})
    again.handle({"do": "hello", "kept": answer["kept"]})  # it is not new any more
    assert again.state == app.history.past[-1]
    other = Explorer(replace(start, source=TestImage(7)))
    other.handle({"do": "hello", "kept": answer["kept"]})
    assert other.state.source == TestImage(7)  # what was kept began elsewhere


@pytest.mark.parametrize("kept", ["", "{", "[]", '{"start": ""}', None, 7, "x" * 10**6])
def test_what_a_page_kept_may_be_anything(app, start, kept):
    answer, _ = app.handle({"do": "hello", "kept": kept})
    assert answer["error"] == ""
    assert app.state == start
    broken = json.dumps({"start": History(start).kept(), "history": kept})
    answer, _ = app.handle({"do": "hello", "kept": broken})
    assert (answer["error"], app.state) == ("", start)


def test_a_long_history_is_kept_in_part(start):
    history = History(start)
    for i in range(60):
        history = history.then(opened(start, TestImage(i)))
    found = History.taken_up(history.kept())
    assert (found.now, found.past) == (history.now, history.past[-20:])
    with pytest.raises(ValueError, match="is no history"):
        History.taken_up("7")


def test_events_from_many_threads_come_one_at_a_time(app):
    def move(to):
        arguments = {"rotation": to}
        app.handle({"do": "edit", "what": "move", "path": [0], "arguments": arguments})

    threads = [threading.Thread(target=move, args=(i / 20,)) for i in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(app.state.edits) == len(app.history.past) == 20
    assert len({edit.arguments for edit in app.state.edits}) == 20


def test_without_a_kernel_there_is_a_still_picture(app):
    bundle, _ = app._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert Image.open(io.BytesIO(bundle["image/png"])).size[0] > 100


def test_the_sources_of_the_page_are_packaged():
    assert {"app.js", "page.css"} <= {path.name for path in PAGE.iterdir()}
    assert '"rnp_lib.explorer" = ["page/*"' in (ROOT / "pyproject.toml").read_text()


def test_the_modules_of_the_page_become_one():
    """What they import is there, no two names are the same, and only the page is exported."""
    own, imported = {}, {}
    for path in PAGE.glob("*.js"):
        text = path.read_text("utf-8")
        names = r"^(export )?(?:async )?(?:function|class|const|let) (\w+)"
        own[path.name] = re.findall(names, text, re.MULTILINE)
        imported |= {
            (path.name, source): set(re.split(r"[\s,]+", found.strip(" ,\n")))
            for found, source in re.findall(r'import \{([^}]*)\} from "\./(\w+\.js)";', text)
        }
    for (_, source), names in imported.items():
        assert names <= {name for export, name in own[source] if export}
    names = [name for found in own.values() for _, name in found]
    assert len(names) == len(set(names))
    text = script()
    assert not re.search(r"^import\b", text, re.MULTILINE)
    assert re.findall(r"^export.*", text, re.MULTILINE) == ["export default { render };"]


def test_the_palette_for_the_colour_blind_can_be_told_apart():
    """By its smallest difference of two of four colours, as dichromats see them (Machado 2009)."""
    deficient = {
        "protan": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
        "deutan": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
        "tritan": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
    }

    def lab(rgb):
        x = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
        ratio = x @ rgb / [0.9505, 1, 1.089]
        f = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
        return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])

    def least(palette):
        srgb = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in palette[:4]])
        linear = np.where(srgb > 0.04045, ((srgb + 0.055) / 1.055) ** 2.4, srgb / 12.92)
        distances = []
        for matrix in deficient.values():
            seen = [lab((np.array(matrix) @ rgb).clip(0, 1)) for rgb in linear]
            distances += [np.linalg.norm(a - b) for i, a in enumerate(seen) for b in seen[:i]]
        return min(distances)

    assert least(plots.PALETTES["colour-blind"]) > 20 > least(plots.COLOURS)


def test_a_committed_map_says_how_it_was_made():
    _, about = checkpoints.read(maps.path_of("mnist"), maps.FORMAT)
    digest = hashlib.sha256(checkpoints.find("mnist").read_bytes()).hexdigest()
    assert about["checkpoint_sha256"] == digest
    assert {"dataset", "data_sha256", "seed", "code"} <= set(about)


def test_hidden_programs_are_pale_in_the_page_and_in_the_figure(start):
    state = edited(start, "hide", (1,), hidden=True)
    assert [node.path for node in views.render(state).nodes if node.hidden] == [(1,)]
    shown, pale = (plots.tree(None, trees.tree(state), hidden=h) for h in ((), {(1,)}))
    ink = [[1 - a.images[0].get_array().min() for a in f.axes] for f in (shown, pale)]
    ratio = np.divide(ink[1], ink[0])
    np.testing.assert_allclose(ratio, [1, 1, 0.3, 1, 1, 1, 1], atol=1e-6)
    outlines = [[len(a.patches) for a in f.axes[:3]] for f in (shown, pale)]
    assert outlines == [[2, 2, 2], [1, 2, 2]]
