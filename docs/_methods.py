"""Which methods the page of a class documents."""

import importlib
import inspect
import pkgutil

import sklearn_dialpref


def documented_methods() -> dict[str, list[str]]:
    """Public methods of each public class that this package writes, inherited or not.

    What scikit-learn's base classes bring is documented there.
    """
    names = [module.name for module in pkgutil.iter_modules(sklearn_dialpref.__path__)]
    modules = [
        importlib.import_module(f"sklearn_dialpref.{name}")
        for name in names
        if not name.startswith("_")
    ]
    public = {
        name: getattr(module, name)
        for module in [sklearn_dialpref, *modules]
        for name in getattr(module, "__all__", [])
    }
    return {name: _own(cls) for name, cls in public.items() if inspect.isclass(cls)}


def _own(cls: type) -> list[str]:
    found = inspect.classify_class_attrs(cls)
    return [
        attribute.name
        for attribute in found
        if attribute.kind in ("method", "class method", "static method")
        and callable(getattr(cls, attribute.name))
        and attribute.defining_class.__module__.startswith("sklearn_dialpref")
        and not attribute.name.startswith("_")
        and not attribute.name.endswith("_request")
    ]
