"""A user's own classes: a label space as data, as it travels in weights files and lies in a file of classes."""

import colorsys
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator

from s4net_core.config import read_yaml
from s4net_core.errors import SettingsError, place_and_problem
from s4net_core.files import write_result
from s4net_core.labels import LABEL_SPACES, UNLABELLED_NAME, LabelSpace, plain_name

NATIVE = "native"
"""Value of `model.label_space` that stands for the classes of a network that is imported."""
CLASSES_FILE = "classes.yaml"
"""Lies in a folder of labels whose ids are not those of SUN RGB-D 37."""
MAX_CLASSES = 254
"""Ids fit into a byte beside 0 and 255, which both mean unlabelled."""
_EXAMPLE = "write a list such as: [floor, {name: pallet, color: [200, 120, 40], synonyms: [skid]}]"

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=64, pattern=r"^[^\x00-\x1f]*$")]
Channel = Annotated[int, Field(ge=0, le=255)]


class ClassEntry(BaseModel):
    """One class.

    Args:
        name: as people write it.
        color: red, green, blue, 0..255; None = one is chosen.
        synonyms: other names of it.
        no_class: whether it means "none of the others", see `LabelSpace.no_class`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    color: tuple[Channel, Channel, Channel] | None = None
    synonyms: Annotated[tuple[Name, ...], Field(max_length=1000)] = ()
    no_class: bool = False


class ClassList(BaseModel):
    """A label space as data.

    Args:
        name: of the label space.
        classes: in the order of their ids, which begin at 1; an entry may be a name alone.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    classes: Annotated[tuple[ClassEntry, ...], Field(min_length=2, max_length=MAX_CLASSES)]

    @field_validator("classes", mode="before")
    @classmethod
    def _names_alone(cls, classes: Any) -> Any:
        if not isinstance(classes, list | tuple):
            return classes
        return [{"name": entry} if isinstance(entry, str) else entry for entry in classes]

    @model_validator(mode="after")
    def _unambiguous(self) -> "ClassList":
        if self.name in LABEL_SPACES:
            raise ValueError(f"the name '{self.name}' is that of built-in classes: give another name")
        owners: dict[str, str] = {}
        for entry in self.classes:
            for name in dict.fromkeys(map(plain_name, (entry.name, *entry.synonyms))):
                if name == UNLABELLED_NAME or not name:
                    raise ValueError(f"'{entry.name}' is called '{name}', which means no class: give another name")
                if name in owners:
                    raise ValueError(
                        f"'{name}' names two classes, {owners[name]} and {entry.name}: names and synonyms must differ"
                    )
                owners[name] = entry.name
        if all(entry.no_class for entry in self.classes):
            raise ValueError("every class has no_class: true: leave it out for the classes that are wanted")
        return self

    def space(self) -> LabelSpace:
        """The label space that this describes."""
        return LabelSpace(
            name=self.name,
            names=tuple(entry.name for entry in self.classes),
            colors=tuple(entry.color or _color(index) for index, entry in enumerate(self.classes)),
            synonyms={plain_name(other): entry.name for entry in self.classes for other in entry.synonyms},
            no_class=frozenset(id for id, entry in enumerate(self.classes, start=1) if entry.no_class),
        )

    @classmethod
    def of(cls, space: LabelSpace) -> "ClassList":
        """The description of a label space that is not built in."""
        return cls(
            name=space.name,
            classes=tuple(
                ClassEntry(
                    name=name,
                    color=color,
                    synonyms=tuple(other for other, own in space.synonyms.items() if own == name),
                    no_class=id in space.no_class,
                )
                for id, (name, color) in enumerate(zip(space.names, space.colors, strict=True), start=1)
            ),
        )


def label_space_of(value: str) -> LabelSpace:
    """The label space that the setting `model.label_space` means.

    Args:
        value: name of a built-in one, or a file of classes.

    Raises:
        SettingsError: it is neither, or the file is refused.
    """
    if value == NATIVE:
        raise SettingsError(
            f"model.label_space is '{NATIVE}', but only a network of the hub has classes of its own "
            f"(s4net import-model): give {', '.join(LABEL_SPACES)} or a file of classes"
        )
    if value in LABEL_SPACES:
        return LABEL_SPACES[value]
    if not os.path.exists(value):
        raise SettingsError(f"there are no classes '{value}': give {', '.join(LABEL_SPACES)} or a file of classes")
    return read_classes(Path(value))


def read_classes(path: Path) -> LabelSpace:
    """The label space that a file of classes describes.

    Args:
        path: YAML: a list of classes, or a table with ``classes`` and ``name``; without a name it is that of the file.

    Raises:
        SettingsError: it cannot be read, or is no such list; the message names the entry and the remedy.
    """
    found = read_yaml(path, "file of classes")
    if isinstance(found, list):
        found = {"classes": found}
    if isinstance(found, dict):
        found = {"name": path.stem if path.name != CLASSES_FILE else path.absolute().parent.name, **found}
    return _validated(found, f"file of classes {path}")


def named_space(name: str, names: Sequence[str]) -> LabelSpace:
    """The label space of classes of which only the names are known.

    Raises:
        SettingsError: the names are not usable, e.g. two are equal.
    """
    return _validated({"name": name, "classes": list(names)}, f"the classes of {name}")


def classes_beside(folder: Path) -> LabelSpace | None:
    """The label space that `CLASSES_FILE` names for a folder of labels; None = there is no such file.

    It is looked for in the folder, in the one above it, and in those directly below it.

    Raises:
        SettingsError: as `read_classes`, or folders below have different classes.
    """
    near = [path for place in (folder, folder.absolute().parent) if (path := place / CLASSES_FILE).is_file()]
    spaces = [read_classes(path) for path in near[:1] or sorted(folder.glob(f"*/{CLASSES_FILE}"))]
    for space in spaces:
        if space.names != spaces[0].names:
            raise SettingsError(f"{folder} mixes the classes {spaces[0]} and {space}: use folders of the same classes")
    return spaces[0] if spaces else None


def write_classes(folder: Path, space: LabelSpace) -> None:
    """Name the classes of the labels in a folder, unless they are built in, which readers assume.

    Raises:
        S4NetError: the file cannot be written.
    """
    if space.name not in LABEL_SPACES:
        content = ClassList.of(space).model_dump(mode="json")
        write_result(folder / CLASSES_FILE, yaml.safe_dump(content, sort_keys=False))


def _validated(content: Any, where: str) -> LabelSpace:
    try:
        return ClassList.model_validate(content).space()
    except ValidationError as error:
        problem = error.errors()[0]
        place, message = place_and_problem(problem["loc"], problem["msg"])
        value = problem["input"]
        told = f" (it is {value!r:.100})" if isinstance(value, str | int | float) else ""
        raise SettingsError(f"{where}{', ' if place else ''}{place}: {message}{told}; {_EXAMPLE}") from error


def _color(index: int) -> tuple[int, int, int]:
    """A colour for the class at a position: hues a golden section apart never come close to their neighbours."""
    hue, value = (index * 0.618034) % 1, (0.95, 0.7, 0.5)[index % 3]
    red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.65, value))
    return red, green, blue
