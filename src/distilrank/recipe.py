"""The recipe: what a run reads, who teaches, what is taught, and how. Unknown keys are refused with a did-you-mean."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from distilrank.errors import UserError, did_you_mean
from distilrank.metrics import parse_measures
from distilrank.recipe_data import DataSpec, QueriesSpec, RetrievalSpec, Section, without_secrets

Dtype = Literal["auto", "float32", "bfloat16"]
LossName = Literal["margin_mse", "weighted_margin_mse", "mse", "kl", "rank_net", "adr_mse"]
Checks = Literal["stop", "warn", "skip"]


class TeacherCommon(Section):
    """What every pointwise teacher has."""

    model: str = Field(description="a folder, hf:org/name[@revision] or pypi:name==version:path")
    device: str = Field("auto", description="auto is the first GPU, else the CPU")
    max_length: int = Field(512, ge=16, description="tokens of prompt and passage; the passage is cut, never the prompt")
    trust_remote_code: bool = Field(False, description="run code that comes with the model")
    weight: float = Field(1.0, gt=0, description="its weight in an ensemble")

    @property
    def source(self) -> str:
        """Where it comes from."""
        return self.model


class EncoderCommon(TeacherCommon):
    """What teachers out of encoders have."""

    dtype: Dtype = Field("auto", description="auto is bfloat16 where the hardware multiplies it")


class LanguageModelCommon(TeacherCommon):
    """What teachers out of language models have."""

    dtype: Dtype | Literal["float8"] = Field("auto", description="float8 is faster and less exact: it is checked first")
    keep_layers: int = Field(2, ge=0, description="float8: so many of the first and of the last layers stay bfloat16")


class CausalSpec(LanguageModelCommon):
    """A language model that answers yes or no: the exact logit difference."""

    kind: Literal["causal"] = "causal"
    template: str = Field("qwen3-reranker", description="the prompt: a packaged template, or a YAML file of your own")
    instruction: str = Field("web-search", description="what relevance means: a text, or the name of a packaged one")
    engine: Literal["packed", "plain", "vllm"] = Field("packed", description="how it is computed, not what")
    vllm: dict[str, Any] = Field({}, description="engine vllm: settings of vllm.LLM under vLLM's own names")
    max_length: int = Field(8192, ge=16, description="tokens of the whole prompt")


class LikelihoodSpec(LanguageModelCommon):
    """Any language model, by the mean log-likelihood of the query given the passage."""

    kind: Literal["likelihood"] = "likelihood"
    engine: Literal["packed", "plain"] = Field("packed", description="how it is computed, not what")
    template: str = Field("chatml-question", description="the prompt around the passage")


class CrossEncoderSpec(EncoderCommon):
    """Any sequence-classification reranker, by its raw logit."""

    kind: Literal["cross-encoder"] = "cross-encoder"


class EmbedderSpec(EncoderCommon):
    """A sentence-transformers embedder, by cosine."""

    kind: Literal["embedder"] = "embedder"


class HttpSpec(Section):
    """A reranking server."""

    kind: Literal["http"] = "http"
    url: str = Field(description="its root, or the endpoint itself")
    api: Literal["tei", "cohere", "vllm"] = Field("tei", description="/rerank, /v1/rerank (Jina's, too) or /score")
    model: str | None = Field(None, description="the server's name for the model; put a revision in it if you can")
    scores: Literal["logits", "probabilities"] = Field("logits", description="what the server returns")
    concurrency: int = Field(8, ge=1, description="requests at a time")
    batch: int = Field(32, ge=1, description="passages a request")
    timeout: float = Field(60.0, gt=0, description="seconds")
    retries: int = Field(5, ge=0, description="after a dropped connection, 429, 500, 502, 503 or 504")
    key_variable: str | None = Field(None, description="the environment variable that holds the bearer token")
    weight: float = Field(1.0, gt=0, description="its weight in an ensemble")

    _no_secrets = field_validator("url")(classmethod(lambda cls, url: without_secrets(url)))

    @property
    def source(self) -> str:
        return self.url


PointwiseSpec = CausalSpec | LikelihoodSpec | CrossEncoderSpec | EmbedderSpec | HttpSpec


class EnsembleSpec(Section):
    """Several pointwise teachers, stored apart and combined."""

    kind: Literal["ensemble"] = "ensemble"
    members: tuple[Annotated[PointwiseSpec, Field(discriminator="kind")], ...] = Field(min_length=1)
    normalize: Literal["global", "query"] = Field("global", description="one affine a member, or z-scores in a query")


TeacherSpec = Annotated[PointwiseSpec | EnsembleSpec, Field(discriminator="kind")]


class ScoreSpec(Section):
    """Where scores are kept."""

    store: str | None = Field(None, description="the score store; default: a folder `scores` beside the run")
    checks: Checks = Field("stop", description="before the first pair: stop when the teacher fails one, warn, or skip them")
    part_pairs: int = Field(16_384, ge=1, description="at most so many pairs are lost when a run is killed")


class MineSpec(Section):
    """What is taught of a query's passages."""

    strategy: Literal["adjacent", "all_pairs"] = Field("all_pairs", description="the reference's rule, or all pairs")
    top_k: int = Field(8, ge=1, description="adjacent: so many of the best passages are positives")
    num_negatives: int = Field(4, ge=1, description="adjacent: so many passages below each are its negatives")
    format: Literal["groups", "triplets"] = Field("groups", description="a row a query, or the reference's row a pair")


class StudentSpec(Section):
    """Who learns."""

    model: str = Field(description="a cross-encoder: a folder, hf:org/name[@revision] or pypi:name==version:path")
    max_length: int = Field(512, ge=16, description="tokens of query and passage")
    trust_remote_code: bool = Field(False, description="run code that comes with the model")


class TrainSpec(Section):
    """How the student learns."""

    mode: Literal["groups", "triplets"] = Field("groups", description="a row a query, or the reference's row a triplet")
    loss: LossName | dict[LossName, Annotated[float, Field(gt=0)]] = Field(
        "margin_mse", description="a loss, or several with a weight each, like {margin_mse: 1, kl: 0.3}"
    )
    calibrate: Literal["auto", "none"] | Annotated[float, Field(gt=0)] = Field(
        "auto", description="within-query deviation to which the teacher's scores are mapped; auto: the student's own"
    )
    epochs: float = Field(1.0, gt=0)
    learning_rate: float = Field(2e-5, gt=0)
    warmup: float = Field(0.05, ge=0, lt=1, description="share of the steps")
    weight_decay: float = Field(0.0, ge=0)
    dropout: float | None = Field(None, ge=0, lt=1, description="none: the model's own")
    queries_per_step: int = Field(16, ge=1, description="groups mode")
    batch_size: int = Field(16, ge=1, description="triplets mode: rows a forward")
    accumulation: int = Field(1, ge=1, description="forwards an optimiser step")
    precision: Dtype = Field("auto", description="of the products; the weights stay float32")
    validation: float = Field(0.05, ge=0, lt=0.5, description="share of the training queries kept for selection")
    evaluations: int = Field(4, ge=1, description="validations, and checkpoints, over the training")
    bounded_scores: bool = Field(False, description="the teacher's scores lie in [0, 1] by nature, like a cosine")


class EvaluateSpec(Section):
    """What is measured."""

    metrics: tuple[str, ...] = Field(("AP", "RR@10", "nDCG@10"), min_length=1, description="by ir-measures' names")
    baselines: tuple[Literal["bm25"], ...] = Field(("bm25",), description="scored on the same candidates")

    @field_validator("metrics")
    @classmethod
    def _known_measures(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        try:
            parse_measures(names)
        except UserError as error:
            raise ValueError(str(error)) from None
        return names


class Recipe(Section):
    """One run from unlabelled groups to a student with evidence."""

    name: str = Field(pattern=r"^[\w.-]+$")
    data: DataSpec
    teacher: TeacherSpec
    score: ScoreSpec = ScoreSpec()
    mine: MineSpec = MineSpec()
    student: StudentSpec
    train: TrainSpec = TrainSpec()
    evaluate: EvaluateSpec = EvaluateSpec()
    seed: int = Field(0, ge=0, lt=2**32)
    output: str | None = Field(None, description="the run folder; default: runs/<name>")

    @model_validator(mode="after")
    def _row_forms_agree(self) -> Recipe:
        if self.mine.format != self.train.mode:
            raise ValueError(f"mine.format is {self.mine.format} but train.mode is {self.train.mode}: make them the same")
        return self

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.output or f"runs/{self.name}")

    @property
    def store(self) -> Path:
        """The folder of the score store."""
        return Path(self.score.store) if self.score.store else self.folder.parent / "scores"

    def to_yaml(self) -> str:
        """The recipe with every setting written out."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def packaged_recipes() -> dict[str, str]:
    """The recipes inside the package: name -> text."""
    found = (entry for entry in files("distilrank").joinpath("recipes").iterdir() if entry.name.endswith(".yaml"))
    return {entry.name.removesuffix(".yaml"): entry.read_text(encoding="utf-8") for entry in found}


def load_recipe(name_or_file: str | Path, changes: Sequence[str] = ()) -> Recipe:
    """Read a recipe file, or a packaged recipe by its name, with changes like `train.epochs=2`.

    Raises `UserError` with file, line and what to do.
    """
    path = Path(name_or_file)
    try:
        text = path.read_text(encoding="utf-8") if path.is_file() else packaged_recipes().get(str(path))
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start + 1})") from None
    except OSError as error:
        raise UserError(f"{str(path)[:200]}: cannot be read: {error.strerror}") from None
    if text is None:
        hint = did_you_mean(str(path), packaged_recipes())
        raise UserError(f"{name_or_file}: no such file and no packaged recipe; {hint}")
    return parse_recipe(text, str(name_or_file), changes)


def parse_recipe(text: str, source: str, changes: Sequence[str] = ()) -> Recipe:
    """The recipe in a YAML text; `source` names it in messages."""
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except (yaml.YAMLError, *BAD_YAML) as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or "a value is not what its tag says"
        raise UserError(f"{source}:{mark.line + 1 if mark else 1}: not YAML: {problem}") from None
    if not isinstance(data, dict):
        raise UserError(f"{source}:1: a recipe is a mapping with the keys {', '.join(Recipe.model_fields)}")
    for change in changes:
        _change(data, change)
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        location = [part for part in first["loc"] if part not in _KINDS and "[" not in str(part)]
        message = first["msg"].removeprefix("Value error, ")
        key = ".".join(map(str, location))
        if unknown := first.get("ctx", {}).get("key"):
            location.append(unknown)
        raise UserError(f"{source}:{_line_of(tree, location)}: {key + ': ' if key else ''}{message}") from None


_KINDS = {"causal", "likelihood", "cross-encoder", "embedder", "http", "ensemble", "constrained-float"}
BAD_YAML = (ValueError, RecursionError, IndexError, KeyError, AttributeError, TypeError)
"""What PyYAML raises on a value that contradicts its own tag."""


def _change(data: dict[str, Any], change: str) -> None:
    path, equals, value = change.partition("=")
    if not equals or not path:
        raise UserError(f"--set {change}: write it as key=value, like train.epochs=2")
    *parents, last = path.split(".")
    place: Any = data
    try:
        for key in parents:
            place = place[int(key)] if isinstance(place, list) else place.setdefault(key, {})
        if isinstance(place, list) and int(last) >= 0:
            place[int(last)] = yaml.safe_load(value)
        elif isinstance(place, dict):
            place[last] = yaml.safe_load(value)
        else:
            raise TypeError
    except (yaml.YAMLError, *BAD_YAML):
        raise UserError(f"--set {change}: there is no such place, or {value!r} is not a YAML value") from None


_NULLS = {"null": "None", "~": "None", "": "None"}


def _line_of(node: Any, location: Sequence[str | int]) -> int:
    """The line of the deepest part of `location` that the file has; an unknown key has its own line."""
    line = int(node.start_mark.line) + 1
    for part in location:
        if isinstance(node, yaml.MappingNode):
            found = [(key, value) for key, value in node.value if part in (key.value, _NULLS.get(str(key.value)))]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            found = [(node.value[part], node.value[part])]
        else:
            found = []
        if not found:
            return line
        line, node = int(found[0][0].start_mark.line) + 1, found[0][1]
    return line


def sampled(recipe: Recipe, queries: int) -> Recipe:
    """A trial of a recipe on so many training and test queries, in a folder of its own; scores are shared with it."""
    if queries < 2:
        raise UserError(f"--sample {queries}: a trial needs at least 2 queries")
    data = recipe.data
    fewer: dict[str, Any] = {
        "train_queries": min(queries, data.train_queries or queries),
        "test_queries": min(queries, data.test_queries or queries),
    }
    if data.corpus and data.corpus.write:
        # About half of what is written is kept, and some of it held out.
        write = data.corpus.write.model_copy(update={"count": min(data.corpus.write.count, 3 * queries)})
        fewer["corpus"] = data.corpus.model_copy(update={"write": write})
    changes = {
        "data": data.model_copy(update=fewer),
        "output": f"{recipe.folder}-sample",
        "score": recipe.score.model_copy(update={"store": str(recipe.store)}),
    }
    return recipe.model_copy(update=changes)


def teacher_spec(kind: str, model: str, **settings: Any) -> Any:
    """A pointwise teacher from command-line options. Raises `UserError` on what it does not have."""
    kinds = {spec.model_fields["kind"].default: spec for spec in PointwiseSpec.__args__}
    if kind not in kinds:
        raise UserError(f"--kind {kind}: {did_you_mean(kind, kinds)}")
    return _validated(kinds[kind], **{"url" if kind == "http" else "model": model} | settings)


def queries_spec(**settings: Any) -> QueriesSpec:
    """Settings of written queries from command-line options. Raises `UserError` on a value out of range."""
    result: QueriesSpec = _validated(QueriesSpec, **settings)
    return result


def retrieval_spec(**settings: Any) -> RetrievalSpec:
    """Settings of retrieval from command-line options. Raises `UserError` on a value out of range."""
    result: RetrievalSpec = _validated(RetrievalSpec, **settings)
    return result


def score_spec(**settings: Any) -> ScoreSpec:
    """Settings of scoring from command-line options. Raises `UserError` on a value out of range."""
    result: ScoreSpec = _validated(ScoreSpec, **settings)
    return result


def train_spec(**settings: Any) -> TrainSpec:
    """Training settings from command-line options. Raises `UserError` on a value out of range."""
    result: TrainSpec = _validated(TrainSpec, **settings)
    return result


def _validated(section: Any, **settings: Any) -> Any:
    try:
        return section(**settings)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        option = f"--{str(first['loc'][0]).replace('_', '-')}: " if first["loc"] else ""
        raise UserError(f"{option}{first['msg'].removeprefix('Value error, ')}") from None
