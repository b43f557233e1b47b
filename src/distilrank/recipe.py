"""The recipe: what a run reads, who teaches, what is taught, and how. Unknown keys are refused with a did-you-mean."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from distilrank.errors import UserError, did_you_mean
from distilrank.metrics import Counting, parse_measures
from distilrank.places import change_at, concerns, line_of
from distilrank.recipe_data import DataSpec, without_secrets
from distilrank.settings import BAD_YAML, Section, from_options, mistake, option

Dtype = Literal["auto", "float32", "bfloat16"]
LossName = Literal["margin_mse", "weighted_margin_mse", "mse", "kl", "rank_net", "adr_mse", "bce"]
Checks = Literal["stop", "warn", "skip"]


class TeacherCommon(Section):
    """What every pointwise teacher has."""

    model: str = Field(description="a folder, hf:org/name[@revision] or pypi:name==version:path")
    device: str = Field("auto", description="auto is the first GPU, else the CPU")
    max_length: int = Field(512, ge=16, description="tokens of prompt and passage; the passage is cut, never the prompt")
    trust_remote_code: bool = Field(False, description="run code that comes with the model")
    weight: float = Field(1.0, gt=0, description="its weight in an ensemble")

    @field_validator("model")
    @classmethod
    def _no_server(cls, model: str) -> str:
        if model.lower().startswith(("http://", "https://")):
            raise ValueError("a server's URL: use --kind http (in a recipe, kind: http with url in place of model)")
        return model

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
    windows: int | None = Field(None, ge=0, description="overlap in tokens of the windows that a long passage is read in")


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

    store: str | None = Field(
        None, description="the score store, a folder or a URL like s3://bucket/scores; default: `scores` beside the run"
    )
    checks: Checks = Field("stop", description="before the first pair: stop when the teacher fails one, warn, or skip them")
    part_pairs: int = Field(16_384, ge=1, description="at most so many pairs are lost when a run is killed")


class MineSpec(Section):
    """What is taught of a query's passages."""

    strategy: Literal["adjacent", "all_pairs", "quantile", "random"] = Field(
        "quantile", description="the reference's rule, all pairs, or all pairs of some: drawn from strata, or at random"
    )
    top_k: int = Field(8, ge=1, description="adjacent: so many of the best passages are positives")
    num_negatives: int = Field(4, ge=1, description="adjacent: so many passages below each are its negatives")
    passages: int = Field(8, ge=2, description="quantile, random: so many of a query's passages are drawn")
    samples: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        "auto", description="quantile, random: draws a query, each a training group; auto: about one pass over it"
    )
    format: Literal["groups", "triplets"] = Field("groups", description="a row a query, or the reference's row a pair")


class StudentSpec(Section):
    """Who learns."""

    model: str = Field(description="a cross-encoder: a folder, hf:org/name[@revision] or pypi:name==version:path")
    max_length: int = Field(512, ge=16, description="tokens of query and passage")
    trust_remote_code: bool = Field(False, description="run code that comes with the model")


EPOCHS = {"fast": 0.5, "balanced": 1.0, "best": 4.0}
"""Of the presets: with the default draws an epoch is one pass over all candidates."""
PUBLISHED = {"loss": "margin_mse", "epochs": 1.0, "learning_rate": 2e-5, "warmup": 0.05}
"""What mode triplets has by itself: the published method's."""


class TrainSpec(Section):
    """How the student learns. The defaults come from the comparisons in docs/quality.md."""

    preset: Literal["fast", "balanced", "best"] = Field(
        "balanced", description="groups mode: half an epoch, 1 or 4, where epochs is not given"
    )
    mode: Literal["groups", "triplets"] = Field("groups", description="a row a query, or the reference's row a triplet")
    loss: LossName | dict[LossName, Annotated[float, Field(gt=0)]] = Field(
        {"margin_mse": 1.0, "kl": 1.0}, description="a loss, or several with a weight each, like {margin_mse: 1, kl: 0.3}"
    )
    calibrate: Literal["auto", "none"] | Annotated[float, Field(gt=0)] = Field(
        "auto",
        description="within-query deviation to which the teacher's scores are mapped; auto: the student's own, at least 1",
    )
    epochs: float = Field(EPOCHS["balanced"], gt=0)
    learning_rate: Literal["auto"] | Annotated[float, Field(gt=0)] = Field(
        "auto",
        description="auto: 2e-4 for a student of width up to 512 (MiniLM), 1e-4 beyond one epoch; 2e-5 for a wider one",
    )
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps")
    weight_decay: float = Field(0.0, ge=0)
    dropout: float | None = Field(None, ge=0, lt=1, description="none: the model's own")
    queries_per_step: int = Field(4, ge=1, description="groups mode: training groups a step")
    batch_size: int = Field(16, ge=1, description="triplets mode: rows a forward")
    accumulation: int = Field(1, ge=1, description="triplets mode: forwards an optimiser step")
    precision: Dtype = Field("auto", description="of the products; the weights stay float32")
    validation: float = Field(0.05, ge=0, lt=0.5, description="share of the training queries kept for selection")
    evaluations: int = Field(4, ge=1, description="validations, and checkpoints, over the training")
    patience: int | None = Field(None, ge=1, description="stop after so many validations without a better one")
    average: float | None = Field(None, gt=0, lt=1, description="decay of a running average of the weights, like 0.999")
    interpolate: Annotated[float, Field(gt=0, le=1)] | Literal["auto"] = Field(
        1.0, description="share of the way from the student's own weights to the trained ones; auto: the best on validation"
    )
    lora: int | None = Field(None, ge=1, description="train low-rank adapters of this rank (peft), merged at the end")
    gradient_checkpointing: bool = Field(False, description="less memory for a third more work")
    report_to: tuple[str, ...] = Field(("tensorboard",), description="tensorboard (in the run folder), wandb, ...")
    bounded_scores: bool = Field(False, description="the teacher's scores lie in [0, 1] by nature, like a cosine")

    @property
    def told(self) -> str:
        """Losses and epochs in a few words, such as `1 margin_mse + 1 kl, 2 epochs`."""
        losses = [self.loss] if isinstance(self.loss, str) else [f"{share:g} {name}" for name, share in self.loss.items()]
        return f"{' + '.join(losses)}, {self.times}"

    @property
    def times(self) -> str:
        """The epochs in words, such as `1 epoch`."""
        return f"{self.epochs:g} epoch{'s' * (self.epochs != 1)}"

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_mode(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        preset = data.get("preset", "balanced")
        epochs = {"epochs": EPOCHS[preset]} if isinstance(preset, str) and preset in EPOCHS else {}
        return (PUBLISHED if data.get("mode") == "triplets" else epochs) | data

    @model_validator(mode="after")
    def _settings_of_the_mode(self) -> TrainSpec:
        if not self.loss:
            raise ValueError("loss names no loss: leave it out, or give some a weight, like {margin_mse: 1, kl: 0.3}")
        if self.mode == "groups" and self.accumulation > 1:
            raise ValueError("accumulation is for mode triplets: raise queries_per_step, computed in pieces that fit")
        if self.mode == "groups" and self.batch_size != TrainSpec.model_fields["batch_size"].default:
            raise ValueError("batch_size is for mode triplets: set queries_per_step")
        if self.mode == "triplets":
            of_groups = ["preset", "queries_per_step", "patience", "average", "interpolate", "lora"]
            for name in [*of_groups, "gradient_checkpointing"]:
                if getattr(self, name) != TrainSpec.model_fields[name].default:
                    raise ValueError(f"{name} is for mode groups")
        if not self.validation and (self.patience or self.interpolate == "auto"):
            raise ValueError("patience and interpolate: auto need validation queries")
        return self


class EvaluateSpec(Section):
    """What is measured."""

    metrics: tuple[str, ...] = Field(("AP", "RR@10", "nDCG@10"), min_length=1, description="by ir-measures' names")
    baselines: tuple[Literal["given", "bm25"], ...] = Field(
        ("given", "bm25"), description="on the same candidates: their given order, where a retriever made it, and BM25"
    )
    embedder: str | None = Field(None, description="an embedder to compare with, by cosine: a folder or source")
    models: tuple[str, ...] = Field((), description="further cross-encoders to compare with: folders or sources")
    counting: Counting = Field("judged", description="which queries are in the means")
    latency: float = Field(1.0, ge=0, description="seconds of timing a system on a device; 0: no timing")
    out_of_domain: tuple[str, ...] = Field((), description="labelled sets outside the domain: what did the student forget?")
    max_forgetting: float | None = Field(None, ge=0, description="exit code 3 when more of the first metric is lost there")

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

    name: str
    data: DataSpec
    teacher: TeacherSpec
    score: ScoreSpec = ScoreSpec()
    mine: MineSpec = MineSpec()
    student: StudentSpec
    train: TrainSpec = TrainSpec()
    evaluate: EvaluateSpec = EvaluateSpec()
    seed: int = Field(0, ge=0, lt=2**32)
    output: str | None = Field(None, description="the run folder; default: runs/<name>")

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, name: str) -> str:
        if not re.fullmatch(r"[\w.-]+", name):
            raise ValueError("must be letters, digits, dots, dashes and underscores, since it names the run folder")
        return name

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
        """The folder of the score store, or its place in an object store."""
        from distilrank.shards import place

        return place(self.score.store) if self.score.store else self.folder.parent / "scores"

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
        change_at(data, change)
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        found = mistake(error)
    if guilty := [change for change in changes if concerns(change, found.place)]:
        raise UserError(f"--set {guilty[-1]}: {found.told}")
    raise UserError(f"{source}{f':{line_of(tree, found.place)}' if found.place else ''}: {found}")


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


def teacher_spec(kind: str, source: str, /, **settings: Any) -> Any:
    """A pointwise teacher from command-line options. Raises `UserError` on what it does not have."""
    kinds = {spec.model_fields["kind"].default: spec for spec in PointwiseSpec.__args__}
    if kind not in kinds:
        raise UserError(f"--kind {kind}: {did_you_mean(kind, kinds)}")
    named = _source_of(kinds[kind])
    called = {"scores": "served_scores", "model": "served_model"}
    for name in settings:
        having = [other for other, spec in kinds.items() if name in spec.model_fields and name != _source_of(spec)]
        if kind not in having:
            raise UserError(f"{option(called.get(name, name))}: not for --kind {kind}, only for {', '.join(having)}")
    return from_options(kinds[kind], called | {named: "teacher"}, **{named: source} | settings)


def _source_of(spec: Any) -> str:
    """The setting of a teacher that says where it comes from."""
    return "url" if "url" in spec.model_fields else "model"
