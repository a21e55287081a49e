"""Documents that Beautiful Soup has parsed, and elements of them.

A document is pickled as its text and parsed again. Its elements are pickled with all that comes after them, which makes
others of them and takes a long way through a large document: here they are saved by their place in it.
"""

from __future__ import annotations

import copyreg
import operator
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from nbcr.objects.kinds.base import Kind, Reduction, dotted_name

if TYPE_CHECKING:
    from nbcr.objects.pickling import UnitPickler
    from nbcr.objects.sharing import Survey

_ELEMENT = "bs4.element.PageElement"


class Elements(Kind):
    """Documents, tags, strings, comments."""

    types = (_ELEMENT,)

    def parts(self, obj: Any, survey: Survey) -> Iterable[Any] | None:
        document = _document_of(obj)
        return None if document is None else () if document is obj else (document,)

    def reduce(self, obj: Any, pickler: UnitPickler) -> Reduction:
        document = _document_of(obj)
        if document is None:
            return NotImplemented
        pickler.note_package("bs4")
        if document is obj:
            return copyreg.__newobj__, (type(obj),), _without_elements(obj)  # type: ignore[attr-defined]
        key = "elements", id(document)
        if key not in pickler.stand_ins:
            pickler.stand_ins[key] = Listing(document)
        listing = pickler.stand_ins[key]
        if not listing.comes_back:
            pickler.remarks.add("it comes back apart from its document, which would be parsed into other elements")
            return NotImplemented
        return operator.getitem, (listing, listing.places[id(obj)])


def _document_of(element: Any) -> Any:
    """What was parsed; None: the element is in no document."""
    while element.parent is not None:
        element = element.parent
    return element if "builder" in vars(element) else None  # asked for what they have not, tags search below


def _without_elements(document: Any) -> dict[str, Any]:
    """What it is parsed again from. Its elements come of that, also those that the parser has in its hands."""
    state = document.__getstate__()
    return {name: [] if name.endswith("Stack") else value for name, value in state.items() if not _is_element(value)}


def _is_element(value: Any) -> bool:
    return any(dotted_name(base) == _ELEMENT for base in type(value).__mro__)


class Listing:
    """Pickled in place of all elements of a document, in their order."""

    def __init__(self, document: Any) -> None:
        elements = list_elements(document)
        self.document = document
        self.places = {id(element): number for number, element in enumerate(elements)}
        again = copyreg.__newobj__(type(document))  # type: ignore[attr-defined]
        again.__setstate__(_without_elements(document))
        self.comes_back = [_name_of(one) for one in elements] == [_name_of(one) for one in list_elements(again)]

    def __reduce__(self) -> Reduction:
        return list_elements, (self.document,)


def list_elements(document: Any) -> list[Any]:
    """All elements of a document."""
    return list(document.descendants)


def _name_of(element: Any) -> tuple[type, str]:
    return type(element), str(element) if isinstance(element, str) else element.name


KINDS: tuple[Kind, ...] = (Elements(),)
