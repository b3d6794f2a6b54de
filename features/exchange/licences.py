"""Whether a corpus's licence lets what is made of it be passed on to the public.

Features give away words and voices, and models what they were fitted to. So whatever is handed on
to a public place passes `check_public` first. A corpus says it by its attribute `public_licence`:
without one, as for data that is given to those alone who sign for it, nothing may be passed on.
"""

from __future__ import annotations

from features.corpus.entry import PACKAGE, CorpusEntry
from features.errors import ParamsError
from features.settings.plugins import load

SEVERAL = "other"  # the model hub's word for a licence that it has no name of


def public_licence(entry: CorpusEntry) -> str | None:
    """The licence under which what is made of a corpus may be passed on; None: it may not be.

    >>> public_licence(CorpusEntry("demo", "demo")), public_licence(CorpusEntry("x", "iemocap"))
    ('mit', None)
    """
    found = {licence for _, licence in _licences(entry)}
    if None in found:
        return None
    return found.pop() if len(found) == 1 else SEVERAL


def languages(entry: CorpusEntry) -> list[str]:
    """Codes of the languages of a corpus, as far as they are known."""
    found = (getattr(load(PACKAGE, of.kind), "language", None) for of in _parts(entry))
    return sorted({language for language in found if language is not None})


def check_public(entry: CorpusEntry, what: str, *, may: bool) -> None:
    """Refuse to pass on what was made of a corpus whose licence does not allow it.

    Args:
        entry: The corpus.
        what: What is to be passed on, and where to.
        may: Whether the user has the permission of the corpus's owner (`--i-may`).

    Raises:
        ParamsError: Naming the licence.
    """
    forbidding = [of for of, licence in _licences(entry) if licence is None]
    if may or not forbidding:
        return
    terms = "; ".join(f"{of.name} ({load(PACKAGE, of.kind).source.licence})" for of in forbidding)
    raise ParamsError(
        f"{what}: it was made of {terms}, whose licence does not let it be passed on to anybody; "
        "expected a corpus with a licence that does, or the permission of its owner: say --i-may "
        "if you have that"
    )


def _parts(entry: CorpusEntry) -> tuple[CorpusEntry, ...]:
    return entry.members or (entry,)


def _licences(entry: CorpusEntry) -> list[tuple[CorpusEntry, str | None]]:
    """Each corpus with its licence; a union without its members has none."""
    return [(of, getattr(load(PACKAGE, of.kind), "public_licence", None)) for of in _parts(entry)]
