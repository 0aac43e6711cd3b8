"""Which class of a label space a name means: by its own name, its WordNet id, another spelling or a synonym.

What a name cannot decide ("crane" is a bird and a machine) an id can ("n02012849").
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from functools import cached_property

from diffcern.errors import UsageError
from diffcern.labels import IDENTIFIED, imagenet_ids, normal, synonyms_of

Aliases = dict[str, set[int]]


class Spellings:
    """Finds the classes that names mean among `names`; ids: their WordNet ids, None where unknown.

    In this order: the name itself, the id, the name in other capitals or with underscores, a synonym ("white shark",
    "tench, Tinca tinca"; of classes without an id, one that their name lists behind a comma).
    """

    def __init__(self, names: Sequence[str], ids: Sequence[str] | None = None) -> None:
        self.names = names
        self._ids = ids

    def indices(self, wanted: Sequence[str], what: str = "the predictor") -> list[int]:
        """The class of each name. what: has the label space, in messages.

        Raises UsageError for a name that means no class, with the nearest ones, or several, and for two that mean one.
        """
        if unknown := self.unknown(wanted):
            raise UsageError(
                f"asked for classes: {abridged(unknown)}; {what} knows {len(self.names)}: {abridged(self.names)}"
                + self.nearest(unknown)
            )
        found = [self.find(name) for name in wanted]
        for name, hits in zip(wanted, found, strict=True):
            if len(hits) > 1:
                known = " or ".join(repr(self.names[k]) for k in sorted(hits))
                raise UsageError(f"{name!r} may be {known}: say which of them, by that name or its WordNet id")
        chosen: dict[int, str] = {}
        for name, hits in zip(wanted, found, strict=True):
            (index,) = hits
            if index in chosen:
                raise UsageError(
                    f"asked for a class twice: {chosen[index]!r} and {name!r} are both {self.names[index]!r}. Labels "
                    "that hold commas go into a file, one a line"
                )
            chosen[index] = name
        return list(chosen)

    def unknown(self, wanted: Sequence[str]) -> list[str]:
        """Those that mean no class."""
        return [name for name in wanted if not self.find(name)]

    def find(self, name: str) -> set[int]:
        """The classes that the name may mean: none, one or several."""
        looked_up = (("_exact", name), ("_identified", name), ("_own", normal(name)), ("_others", normal(name)))
        for aliases, key in looked_up:  # one after the other: synonyms are slow to import
            if hits := getattr(self, aliases).get(key):
                return set(hits)
        return set()

    @cached_property
    def ids(self) -> Sequence[str]:
        """The WordNet ids, () where they are not known."""
        return self._ids or imagenet_ids(self.names) or ()

    @cached_property
    def _exact(self) -> Aliases:
        return _aliases(enumerate(self.names))

    @cached_property
    def _identified(self) -> Aliases:
        return _aliases(enumerate(self.ids))

    @cached_property
    def _own(self) -> Aliases:
        return _aliases((k, normal(name)) for k, name in enumerate(self.names))

    @cached_property
    def _others(self) -> Aliases:
        spelled = []
        for k, name in enumerate(self.names):
            known = (name, *name.split(", "), *(synonyms_of(self.ids[k]) if self.ids else ()))
            spelled += [(k, normal(IDENTIFIED.sub("", other))) for other in known]
        return _aliases(spelled)

    def nearest(self, unknown: Sequence[str]) -> str:
        """For a message: what is spelled nearly like each of the first few, "" where nothing is."""
        known = {key: next(iter(hits)) for aliases in (self._others, self._own) for key, hits in aliases.items()}
        hints = []
        for name in unknown[:3]:
            near = difflib.get_close_matches(normal(name), known, n=3, cutoff=0.6)
            called = list(dict.fromkeys(self.names[known[key]] for key in near))
            hints += [f"; nearest to {name!r}: {', '.join(called)}"] if called else []
        return "".join(hints)


def _aliases(pairs: Iterable[tuple[int, str]]) -> Aliases:
    aliases: Aliases = {}
    for index, name in pairs:
        aliases.setdefault(name, set()).add(index)
    return aliases


def abridged(names: Sequence[str], limit: int = 6) -> str:
    """The first names, for a message."""
    return ", ".join([*names[:limit], *(["..."] if len(names) > limit else [])])
