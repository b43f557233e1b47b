"""Prints SkyPilot's own JSON schemas of a task and of its resources, read off its wheel without what it depends on.

    python sky_schemas.py WHEEL_FOLDER

In a process of its own, since it puts stand-ins for SkyPilot's modules among the imported ones.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from unittest.mock import MagicMock


def stand_in(name: str) -> None:
    """A module that has every attribute: these are asked for at import, and are not in the two schemas."""
    module = ModuleType(name)
    module.__getattr__ = lambda attribute: "0" if attribute == "__version__" else MagicMock()  # type: ignore[method-assign]
    sys.modules[name] = module


def real(folder: Path, name: str) -> ModuleType:
    """A module of the wheel as it is."""
    module = ModuleType(name)
    file = folder.joinpath(*name.split(".")).with_suffix(".py")
    exec(compile(file.read_text(encoding="utf-8"), str(file), "exec"), module.__dict__)
    above, _, last = name.rpartition(".")
    setattr(sys.modules[above], last, module)
    sys.modules[name] = module
    return module


def main() -> None:
    folder = Path(sys.argv[1])
    for name in ("sky", "sky.skylet", "sky.utils", "sky.setup_files", "sky.skylet.autostop_lib", "sky.server"):
        stand_in(name)
    real(folder, "sky.utils.kubernetes_enums")
    real(folder, "sky.skylet.constants")
    schemas = real(folder, "sky.utils.schemas")
    schemas._allow_additional_properties = lambda: False  # as on its server, which knows all plugins
    found = {"task": schemas.get_task_schema(), "resources": schemas.get_resources_schema()}
    print(json.dumps(found, default=lambda value: list(value) if isinstance(value, set | tuple) else str(value)))


if __name__ == "__main__":
    main()
