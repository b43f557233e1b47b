"""What a server may be asked to do, and what it refuses."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from distilrank.settings import Section


class ServeSettings(Section):
    """Settings of `distilrank serve`; sizes in bytes, times in seconds."""

    host: str = Field("127.0.0.1", description="the address to listen on")
    port: int = Field(8080, ge=0, le=65_535, description="0: any free one, which is told")
    engine: Literal["torch", "onnx"] = Field("torch", description="how it is computed")
    dtype: Literal["auto", "float32", "bfloat16"] = Field("auto", description="of the products (torch)")
    device: str = Field("auto", description="auto is the first GPU, else the CPU (torch)")
    threads: int | None = Field(None, ge=1, description="of the CPU; none: as many as the library takes")
    max_length: int = Field(512, ge=16, description="tokens of query and passage together")
    windows: int | None = Field(None, ge=0, description="overlap in tokens of the windows that a long passage is read in")
    batch_tokens: int | None = Field(None, ge=16, description="of one batch; none: by the device")
    queue: int = Field(8_192, ge=1, description="pairs that may wait, all requests together")
    max_texts: int = Field(1_000, ge=1, description="passages a request")
    max_chars: int = Field(100_000, ge=1, description="characters of a query, and of a passage")
    max_body: int = Field(4 * 2**20, ge=1, description="bytes of a request's body")
    timeout: float = Field(30.0, gt=0, description="until a request is answered, once it has been read")
    read_timeout: float = Field(10.0, gt=0, description="from a request's first byte to its headers, and for its body")
    drain: float = Field(30.0, gt=0, description="for what is being answered when the server is told to stop")

    @model_validator(mode="after")
    def _they_fit_each_other(self) -> ServeSettings:
        if self.queue < self.max_texts:
            raise ValueError(f"queue {self.queue} is below max_texts {self.max_texts}: one request must fit into it")
        if self.windows is not None and self.windows > self.max_length // 2:
            raise ValueError(f"windows {self.windows} is over half of max_length {self.max_length}: little would be new")
        return self
