"""Uploading a model folder to a hub: its card, safetensors, configuration and tokenizer; private unless asked otherwise."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distilrank.errors import UserError
from distilrank.progress import say

CARD = "README.md"
PUSHED = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "LICENSE*", CARD)
"""What a model folder is made of. No pickled weights, no checkpoints, nothing whose name begins with a dot."""
_DESTINATION = re.compile(r"(?P<hub>hf|modelscope):(?P<name>[\w.-]+/[\w.-]+)")


def push(model: str | Path, destination: str, *, private: bool = True, message: str = "") -> tuple[str, list[str]]:
    """Upload a model folder to `hf:org/name` or `modelscope:org/name`; returns the page's address and the files' names.

    The repository is made where it is missing. Raises `UserError` when the folder is no model with a card, when a public
    repository is there and `private` was not switched off, or when the hub refuses; no token is in any message.
    """
    model = Path(model)
    if not (match := _DESTINATION.fullmatch(destination)):
        raise UserError(f"{destination}: write it as hf:org/name or modelscope:org/name")
    files = files_of(model)
    size = sum((model / name).stat().st_size for name in files)
    say(f"  {len(files)} files, {size / 1e6:,.0f} MB -> {destination} ({'private' if private else 'public'})")
    send = _to_modelscope if match["hub"] == "modelscope" else _to_hugging_face
    return send(model, files, match["name"], private, message or "A reranker distilled with distilrank"), files


def files_of(model: Path) -> list[str]:
    """The names of the files that are uploaded, relative to the folder. Raises `UserError` when something is missing."""
    found = {file for pattern in PUSHED for file in model.rglob(pattern) if file.is_file()}
    names = sorted(file.relative_to(model).as_posix() for file in found)
    names = [name for name in names if not any(part.startswith(("checkpoint-", ".")) for part in name.split("/"))]
    if not (model / "config.json").is_file() or not any(name.endswith(".safetensors") for name in names):
        raise UserError(f"{model}: no model folder with config.json and safetensors")
    if CARD not in names:
        raise UserError(f"{model}: has no {CARD}: a model is not published without its card")
    return names


def _to_hugging_face(model: Path, files: Sequence[str], name: str, private: bool, message: str) -> str:
    from huggingface_hub import CommitOperationAdd, HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if not (token := get_token()):
        raise UserError(f"hf:{name}: no token: set HF_TOKEN or run `hf auth login`")
    hub = HfApi(token=token)
    try:
        hub.create_repo(name, private=private, exist_ok=True)
        _refuse_public(f"hf:{name}", private and not hub.model_info(name).private)
        # One commit of everything: the repository never holds half a model.
        operations = [CommitOperationAdd(path_in_repo=file, path_or_fileobj=str(model / file)) for file in files]
        hub.create_commit(name, operations, commit_message=message)
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        raise _refused(f"hf:{name}", error, token) from None
    return f"{hub.endpoint}/{name}"


def _to_modelscope(model: Path, files: Sequence[str], name: str, private: bool, message: str) -> str:
    try:
        from modelscope_hub import HubApi
        from modelscope_hub.config import HubConfig
        from modelscope_hub.errors import HubError
    except ModuleNotFoundError:
        raise UserError(f"modelscope:{name}: needs ModelScope's client: pip install 'distilrank[modelscope]'") from None

    logging.getLogger("modelscope_hub").setLevel(logging.CRITICAL)  # what goes wrong is told in our words
    config = HubConfig()
    hub = HubApi(config)
    if not config.token:
        raise UserError(f"modelscope:{name}: no token: set MODELSCOPE_API_TOKEN or run `modelscope login`")
    try:
        if not hub.repo_exists(name, "model"):
            hub.create_repo(name, "model", visibility="private" if private else "public")
        _refuse_public(f"modelscope:{name}", private and _visible(hub.get_repo(name, "model")))
        hub.upload_folder(
            name, "model", model, commit_message=message, allow_patterns=list(files), use_cache=False, disable_tqdm=True
        )
    except (HubError, OSError, ValueError) as error:
        raise _refused(f"modelscope:{name}", error, config.token) from None
    return f"{config.endpoint}/models/{name}"


def _visible(repository: Any) -> bool:
    """Whether ModelScope's description of a repository says that everyone sees it."""
    return str(getattr(repository.visibility, "value", repository.visibility)).lower() in ("public", "5")


def _refuse_public(destination: str, public: bool) -> None:
    if public:
        raise UserError(f"{destination}: is there already and is public: say --public, or choose another name")


def _refused(destination: str, error: Exception, token: str) -> UserError:
    """What the hub said, in a line and without the token."""
    said = " ".join(str(error).split())
    return UserError(f"{destination}: {said.replace(token, '***')}")
