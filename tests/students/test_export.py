"""An export gives the original's scores, lies as other tools look for it, and is not there at all when it lost too much."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import load as load_onnx

import tiny
from distilrank import cli
from distilrank.engines.classifier import Reranker, encode_pairs
from distilrank.engines.load import load_tokenizer
from distilrank.errors import GateError, UserError
from distilrank.evidence.agreement import agreement_with
from distilrank.metrics import measure
from distilrank.records import Group, Passage, TrainingGroup, write_groups, write_training_groups
from distilrank.shards import write_text
from distilrank.students import TrainSettings
from distilrank.students.export import FORMATS, RECORD, ExportSettings, export, onnx, parity_groups
from distilrank.students.export.parity import compare
from distilrank.students.folder import open_student, save_student
from distilrank.students.validation import query_hash, validation_threshold

pytest.importorskip("onnxscript", reason="the extra `export` is not installed")
GROUPS = tiny.groups(6, 5, most_words=30)
SETTINGS = TrainSettings(max_length=64, precision="float32", device="cpu")


def student(source: Path, folder: Path) -> Path:
    """A model folder as a training leaves it."""
    model = open_student(source, SETTINGS, "cpu")
    save_student(model, folder, {"settings": SETTINGS.model_dump()}, "---\ntags: []\n---\n# A card\n")
    return folder


@pytest.fixture(scope="session", params=["bert", "xlmr"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return student(request.getfixturevalue(request.param), tmp_path_factory.mktemp("trained") / request.param)


@pytest.fixture(scope="session")
def exported(trained: Path) -> Path:
    export(trained, trained.with_name("onnx"), ExportSettings("onnx"), GROUPS)
    return trained.with_name("onnx")


def record(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / RECORD).read_text(encoding="utf-8")))


def test_onnx_gives_the_original_logits_for_any_batch_and_length(trained: Path, exported: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(str(exported / "onnx/model.onnx"), providers=["CPUExecutionProvider"])
    tokenizer = load_tokenizer(exported)
    found = []
    for group in GROUPS:  # one pair at a time, then all at once: no shape is built in
        for passage in group.passages:
            inputs = tokenizer(group.query, passage.text, truncation=True, return_tensors="np")
            found.append(session.run(["logits"], dict(inputs))[0][0, 0])
    whole = np.concatenate(Reranker(trained, dtype="float32", device="cpu", max_length=64).score(GROUPS))
    np.testing.assert_allclose(found, whole, atol=1e-4)
    assert [i.name for i in session.get_inputs()] == [
        name for name in ("input_ids", "attention_mask", "token_type_ids") if name in tokenizer.model_input_names
    ]
    assert [o.name for o in session.get_outputs()] == ["logits"]
    assert record(exported)["parity"]["max_difference"] < 1e-4


def test_what_lies_beside_is_what_the_tools_read(trained: Path, exported: Path) -> None:
    config, settings = (
        json.loads((exported / name).read_text(encoding="utf-8")) for name in ("config.json", "tokenizer_config.json")
    )
    assert config["architectures"][0].endswith("ForSequenceClassification")
    assert (len(config["id2label"]), len(config["label2id"])) == (1, 1)
    assert isinstance(config["pad_token_id"], int)
    assert settings["model_max_length"] == 64
    assert settings["pad_token"] == json.loads((exported / "special_tokens_map.json").read_text())["pad_token"]
    assert json.loads((exported / "sentence_bert_config.json").read_text())["max_seq_length"] == 64
    # The tools that are not Python read tokenizer.json alone: it must give the ids that the model was taught with.
    core = tokenizers.Tokenizer.from_file(str(exported / "tokenizer.json"))
    core.enable_truncation(64)
    pairs = [(group.query, passage.text) for group in GROUPS for passage in group.passages]
    encoded = encode_pairs(load_tokenizer(trained), *zip(*pairs, strict=True), 64)
    assert [row.ids for row in core.encode_batch(pairs)] == encoded["input_ids"]
    assert not list(exported.rglob("*.safetensors"))


def test_int8_is_smaller_and_bears_both_names(trained: Path, exported: Path, tmp_path: Path) -> None:
    parity = export(trained, tmp_path / "int8", ExportSettings("onnx-int8", max_loss=1.0), GROUPS)
    plain, named = tmp_path / "int8/onnx/model.onnx", tmp_path / "int8/onnx/model_quantized.onnx"
    assert plain.samefile(named)
    assert plain.stat().st_size < 0.75 * (exported / "onnx/model.onnx").stat().st_size
    assert 0 < parity.max_difference < 1.0
    assert record(tmp_path / "int8")["dtype"] == "int8"
    graph = load_onnx(plain).graph
    # Of the two feed-forward products of each layer the first is int8, the second is not; nor are the head's two.
    kept = [node for node in graph.node if node.op_type == "MatMul" and node.input[1] in {t.name for t in graph.initializer}]
    assert len(kept) == 4
    assert sum(node.op_type == "MatMulInteger" for node in graph.node) == 2 * 5


@pytest.mark.slow
def test_weights_over_two_gigabytes_lie_in_a_second_file(
    xlmr: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx, "MOST_BYTES", 0)
    parity = export(xlmr, tmp_path / "large", ExportSettings("onnx"), GROUPS)
    assert parity.max_difference < 1e-4
    plain, weights = tmp_path / "large/onnx/model.onnx", tmp_path / "large/onnx/model.onnx_data"
    assert plain.is_file()
    assert weights.stat().st_size > 150_000  # all tensors but the smallest
    config = json.loads((tmp_path / "large/config.json").read_text(encoding="utf-8"))
    assert config["transformers.js_config"] == {"use_external_data_format": {"model.onnx": 1}}
    export(xlmr, tmp_path / "int8", ExportSettings("onnx-int8", max_loss=1.0), GROUPS)
    names = sorted(path.name for path in (tmp_path / "int8/onnx").iterdir())
    assert names == ["model.onnx", "model_quantized.onnx"]


def test_a_static_int8_is_calibrated_on_passages(bert: Path, tmp_path: Path) -> None:
    calibrated = ExportSettings("onnx-int8", calibrate=GROUPS, max_loss=1.0)
    parity = export(bert, tmp_path / "int8", calibrated, GROUPS)
    assert 0 < parity.max_difference < 1.0
    assert record(tmp_path / "int8")["calibrated_on"] == len(GROUPS)
    # Attention's products of two activations are not among the quantised ones.
    assert sum(node.op_type == "QLinearMatMul" for node in load_onnx(tmp_path / "int8/onnx/model.onnx").graph.node) == 2 * 5


def test_an_export_that_loses_too_much_leaves_nothing(trained: Path, tmp_path: Path) -> None:
    groups = [Group(group.query_id, group.query, tuple(Passage(p.text) for p in group.passages)) for group in GROUPS]
    with pytest.raises(GateError, match=r"loses .* nDCG@10"):
        export(trained, tmp_path / "lossy", ExportSettings("safetensors", "bfloat16", max_loss=-1.0), groups)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_half_sized_copy_is_an_ordinary_model(dtype: str, trained: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file
    from sentence_transformers import CrossEncoder

    parity = export(trained, tmp_path / "half", ExportSettings("safetensors", dtype, max_loss=1.0), GROUPS)
    weights = load_file(tmp_path / "half/model.safetensors")
    assert {str(tensor.dtype) for tensor in weights.values()} == {f"torch.{dtype}"}
    pairs = [(GROUPS[0].query, passage.text) for passage in GROUPS[0].passages]
    half, whole = (CrossEncoder(str(folder), device="cpu").predict(pairs) for folder in (tmp_path / "half", trained))
    assert 0 < np.abs(half.astype(np.float32) - whole).max() <= parity.max_difference + 1e-3


def test_only_what_a_model_is_made_of_is_copied(bert: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(bert, source)
    (source / "LICENSE").write_text("ours")
    for name in ("optimizer.pt", "pytorch_model.bin", ".git/config", "checkpoint-5/trainer_state.json", "onnx/model.onnx"):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_bytes(b"x")
    export(source, tmp_path / "half", ExportSettings("safetensors", "float16", max_loss=1.0), GROUPS)
    found = {path.relative_to(tmp_path / "half").as_posix() for path in (tmp_path / "half").rglob("*")}
    assert {"LICENSE", "config.json", "model.safetensors", "tokenizer.json", RECORD} <= found
    assert not {name.split("/")[0] for name in found} & {"optimizer.pt", "pytorch_model.bin", ".git", "checkpoint-5", "onnx"}


def test_openvino_gives_the_original_logits(trained: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="the extra `openvino` is not installed")
    parity = export(trained, tmp_path / "openvino", ExportSettings("openvino"), GROUPS)
    assert parity.max_difference < 1e-4
    assert (tmp_path / "openvino/openvino/openvino_model.bin").is_file()
    assert not (tmp_path / "openvino/onnx").exists()


# ---- parity


scores = st.lists(st.lists(st.floats(-10, 10, width=32), min_size=5, max_size=5), min_size=6, max_size=6)


@settings(max_examples=25)
@given(scores, scores)
def test_parity_is_what_the_evidence_says(before: list[list[float]], after: list[list[float]]) -> None:
    first, second = ([np.array(row, dtype=np.float32) for row in rows] for rows in (before, after))
    found = compare("g", GROUPS, first, second)
    wanted = agreement_with(GROUPS, first, second)
    if wanted.queries:
        assert found.kendall_tau == pytest.approx(wanted.kendall_tau)
        assert found.ndcg == pytest.approx(wanted.ndcg)
    assert found.map_after == pytest.approx(measure(GROUPS, second, ("AP",)).mean("AP"))
    assert found.loss == pytest.approx(found.map_before - found.map_after)
    same = compare("g", GROUPS, first, first)
    assert (same.kendall_tau, same.max_difference, same.loss) == (pytest.approx(1.0), 0.0, 0.0)


def test_scores_that_are_not_finite_never_pass() -> None:
    good = [np.arange(5, dtype=np.float32)] * len(GROUPS)
    with pytest.raises(GateError, match="not finite"):
        compare("g", GROUPS, good, [*good[:-1], np.full(5, np.nan, dtype=np.float32)])


def test_without_labels_the_order_is_compared() -> None:
    groups = [Group("q", "q", tuple(map(Passage, "abc")))]
    before, after = [np.array([3.0, 2.0, 1.0])], [np.array([1.0, 2.0, 3.0])]
    parity = compare("g", groups, before, after)
    assert parity.map_before is None
    assert parity.kendall_tau == -1.0
    assert parity.loss == pytest.approx(1 - parity.ndcg)
    assert parity.loss > 0.2


def test_a_run_brings_its_held_out_queries(trained: Path, tmp_path: Path) -> None:
    run, model = tmp_path / "run", tmp_path / "run/model"
    model.mkdir(parents=True)
    write_text(run / "manifest.json", "{}")
    write_text(model / "distilrank.json", json.dumps({"settings": {"validation": 0.2, "seed": 3}}))
    groups = tiny.groups(60)
    write_groups(run / "data/train.parquet", groups)
    rows = (TrainingGroup(g.query, tuple(p.text for p in g.passages), (4.0, 3.0, 2.0, 1.0)) for g in groups)
    write_training_groups(run / "data/training.parquet", rows)
    name, found = parity_groups(model)
    threshold = validation_threshold([group.query for group in groups], 0.2, 3)
    assert "validation" in name
    assert found == [group for group in groups if query_hash(group.query, 3) < threshold]
    assert len(found) == 12
    write_groups(run / "data/test.parquet", groups[:5])
    name, found = parity_groups(model)
    assert ("test" in name, found) == (True, groups[:5])
    assert parity_groups(trained)[0] == "built-in texts"


# ---- what is refused, and the command


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"form": "tflite"}, "--format tflite"),
        ({"dtype": "int4"}, "--dtype int4"),
        ({"form": "onnx", "dtype": "float16"}, "only safetensors"),
        ({"form": "onnx", "calibrate": GROUPS}, "only onnx-int8"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        ExportSettings(**settings)


def test_only_a_reranker_is_exported_and_nothing_foreign_replaced(embedder: Path, bert: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a cross-encoder"):
        export(embedder, tmp_path / "out", ExportSettings(), GROUPS)
    write_text(tmp_path / "mine/notes.txt", "keep me")
    with pytest.raises(UserError, match="not ours to replace"):
        export(bert, tmp_path / "mine", ExportSettings(), GROUPS)
    assert len(FORMATS) == 4


def test_the_command(bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_groups(tmp_path / "groups.jsonl", GROUPS)
    command = [
        "export",
        str(bert),
        "--format",
        "safetensors",
        "--dtype",
        "bfloat16",
        "--parity",
        str(tmp_path / "groups.jsonl"),
    ]
    assert cli.run([*command, "-o", str(tmp_path / "a"), "--max-loss", "1", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["groups"], said["queries"], said["pairs"]) == ("groups.jsonl", 6, 30)
    assert said["loss"] == pytest.approx(said["map_before"] - said["map_after"])
    assert cli.run(["export", str(tmp_path / "absent"), "-o", str(tmp_path / "b")]) == 2
    assert not (tmp_path / "b").exists()
