"""A config node becomes an object: only classes that are allowed there, only options that they have.

Nothing is imported, built or called before the whole resolved tree has passed `check`. Importing this file
costs nothing: the standard library alone, so that a typo is answered before torch is loaded.
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dvsn.config.allow import allowed, check, group_of, join, renamed
from dvsn.config.menu import PACKAGE
from dvsn.config.types import fits, found, read_hint, spell
from dvsn.errors import CheckpointError, ConfigError, DataError, UserError, nearest


def build(node: Any, *, path: str = "", **extra: Any) -> Any:
    """Builds the node and everything in it; `extra` are further arguments of the outermost class.

    `path` is where the node stands in the config, for instance "network": it decides what is allowed and
    starts every message. The whole node is checked before the first import. A dict with `_target_` becomes
    an object, with `_partial_: true` a `functools.partial`; other dicts and lists stay plain.
    Raises `ConfigError`.
    """
    omegaconf = sys.modules.get("omegaconf")
    if omegaconf is not None and omegaconf.OmegaConf.is_config(node):
        node = omegaconf.OmegaConf.to_container(node, resolve=True)
    check(node, path=path)
    return _build(renamed(node), path, extra)


def _build(node: Any, path: str, extra: dict[str, Any]) -> Any:
    if isinstance(node, list | tuple):
        return [_build(value, join(path, i), {}) for i, value in enumerate(node)]
    if not isinstance(node, Mapping):
        return node
    if "_target_" not in node:
        if extra:
            raise ConfigError(f"{path}: nothing to build, the key _target_ is missing")
        return {key: _build(value, join(path, key), {}) for key, value in node.items()}
    kind = _locate(node["_target_"], path)
    partial = node.get("_partial_", False)
    given = {key: value for key, value in node.items() if key not in ("_target_", "_partial_")}
    options = _runtime_options(kind)
    if options is not None:
        check_signature(given | extra, options, path, partial)
    arguments = {key: _build(value, join(path, key), {}) for key, value in given.items() if key not in extra}
    if kind.__module__.startswith("albumentations.") and hasattr(kind, "InitSchema"):
        arguments["strict"] = True  # otherwise some bad options only warn and the defaults are used
    if partial:
        return functools.partial(kind, **arguments, **extra)
    try:
        return kind(**arguments, **extra)
    except (CheckpointError, DataError):
        raise  # names its file
    except UserError as error:
        if not path or str(error).startswith(path.split(".")[0]):
            raise
        raise type(error)(f"{path}: {error}") from error
    except (ValueError, TypeError, ImportError, AssertionError) as error:
        raise ConfigError(f"{path}: {kind.__name__} does not take these options: {error}") from error


def _locate(target: str, path: str) -> type:
    """The class of a target that has passed `check`, without walking attributes."""
    at, group, prefixes = join(path, "_target_"), group_of(path), allowed()
    assert group is not None  # check() has refused it
    module_name, _, name = target.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever a module does when it is imported
        raise ConfigError(f"{at}: cannot import {module_name!r}: {error}") from error
    kind = inspect.getattr_static(module, name, None)
    if not isinstance(kind, type):
        classes = [key for key, value in vars(module).items() if isinstance(value, type)]
        raise ConfigError(f"{at}: {target!r} is not a class. {nearest(name, classes)}")
    home = f"{kind.__module__}."
    if not home.startswith((*group.own, *prefixes)):
        raise ConfigError(f"{at}: {target!r} is really {home}{name}, which is not allowed here")
    rules = [bases for prefix, bases in group.own.items() if home.startswith(prefix)] or [group.foreign]
    if all(bases and not issubclass(kind, tuple(map(_base, bases))) for bases in rules):
        expected = " or ".join(base for bases in rules for base in bases)
        raise ConfigError(f"{at}: {target!r} is not a subclass of {expected}")
    return kind


def _base(name: str) -> type:
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


REQUIRED = inspect.Parameter.empty


class Option(NamedTuple):
    """One argument of a class."""

    hint: Any
    default: Any = REQUIRED


class Options(NamedTuple):
    """The arguments of a class; `others` when it takes any further keyword."""

    owner: str
    named: dict[str, Option]
    others: bool


def check_signature(given: Mapping[str, Any], options: Options, path: str, partial: bool) -> None:
    for key, value in given.items():
        option = options.named.get(key)
        if option is None:
            if options.others:
                continue
            hint = nearest(str(key), options.named)
            raise ConfigError(
                f"{join(path, key)}: unknown option of {options.owner} (found {str(key)!r}). {hint}"
            )
        same = (
            option.default is not REQUIRED and type(option.default) is type(value) and option.default == value
        )
        if not same and not fits(value, option.hint):
            raise ConfigError(f"{join(path, key)}: expected {spell(option.hint)}, {found(value)}")
    for key, option in options.named.items():
        if not partial and option.default is REQUIRED and key not in given:
            raise ConfigError(
                f"{join(path, key)}: {options.owner} needs this option. Set {join(path, key)}=..."
            )


def _runtime_options(kind: type) -> Options | None:
    """From an imported class."""
    try:
        signature = inspect.signature(kind)
    except (ValueError, TypeError):
        return None
    owner = next(base for base in kind.__mro__ if "__init__" in vars(base))
    names = vars(sys.modules[owner.__module__]) if owner.__module__ in sys.modules else {}
    named, others = {}, False
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            others = True
        elif parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            hint = parameter.annotation
            hint = read_hint(hint, names) if isinstance(hint, str) else Any if hint is REQUIRED else hint
            named[parameter.name] = Option(hint, parameter.default)
    return Options(kind.__name__, named, others)


READ = ("dvsn", "torch.optim")  # packages whose sources are read instead of imported


@functools.cache
def _source(module: str) -> ast.Module | None:
    """The parsed source of a module of `READ`; None when there is no such file."""
    first, *rest = module.split(".")
    if first == "dvsn":
        root = PACKAGE
    else:
        spec = importlib.util.find_spec(first)  # a top-level package: found, not imported
        if spec is None or spec.origin is None:
            return None
        root = Path(spec.origin).parent
    base = root.joinpath(*rest)
    for file in (base.with_name(f"{base.name}.py"), base / "__init__.py"):
        if rest and file.is_file():
            return ast.parse(file.read_text(encoding="utf-8"))
    return None


def _readable(module: str) -> bool:
    return f"{module}.".startswith(tuple(f"{name}." for name in READ))


def _imports(tree: ast.Module, module: str) -> Iterator[tuple[str, str]]:
    """(local name, dotted origin) of every `from ... import ...` at the top of a module."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and (node.module or node.level):
            parent = module.split(".")[: -node.level] if node.level else []
            for alias in node.names:
                yield (
                    alias.asname or alias.name,
                    ".".join([*parent, node.module or "", alias.name]).replace("..", "."),
                )


def _static_class(target: str, hops: int = 6) -> tuple[str, ast.ClassDef] | None:
    """(module, class) of a dotted name, following imports. None: not to be judged. ConfigError: not there."""
    module, _, name = target.rpartition(".")
    if not _readable(module) or hops == 0:
        return None
    tree = _source(module)
    if tree is None:
        folder = PACKAGE.joinpath(*module.split(".")[1:-1])
        names = [file.stem for file in folder.glob("*.py") if not file.stem.startswith("_")]
        raise ConfigError(f"there is no module {module}. {nearest(module.rpartition('.')[2], names)}")
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    if name in classes:
        return module, classes[name]
    imports = dict(_imports(tree, module))
    if name in imports:
        return _static_class(imports[name], hops - 1)
    unclear = (ast.Assign, ast.AnnAssign, ast.FunctionDef, ast.If, ast.Try)
    if any(isinstance(node, unclear) and name in ast.dump(node) for node in tree.body):
        return None
    valid = {*classes, *(key for key, origin in imports.items() if _readable(origin))}
    raise ConfigError(f"there is no class {name} in {module}. {nearest(name, valid)}")


def static_options(target: str) -> Options | None:
    """The arguments of a class, from its source; with the base's where `**options` go on to it.

    None where that cannot be told.
    """
    current: str | None = target
    own = Options(target.rpartition(".")[2], {}, False)
    for _ in range(6):
        found = _static_class(current) if current else None
        if found is None:
            return own._replace(others=True) if own.named else None
        module, node = found
        methods = {item.name: item for item in node.body if isinstance(item, ast.FunctionDef)}
        if node.decorator_list or "__new__" in methods or node.keywords:
            return None
        if "__init__" in methods:
            here = _read_arguments(methods["__init__"].args, own.owner, module)
            own = Options(own.owner, here.named | own.named, here.others)
            if not here.others or not _forwards(methods["__init__"]):
                return own
        if not node.bases:
            return own._replace(others=False)
        base, tree = node.bases[0], _source(module)
        if not isinstance(base, ast.Name) or tree is None:
            current = None
            continue
        local = base.id in {item.name for item in tree.body if isinstance(item, ast.ClassDef)}
        current = f"{module}.{base.id}" if local else dict(_imports(tree, module)).get(base.id)
    return None


def _forwards(function: ast.FunctionDef) -> bool:
    """Whether `super().__init__(..., **options)` gets the function's own `**options`."""
    name = function.args.kwarg.arg if function.args.kwarg else None
    calls = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
    return any(
        ast.unparse(call.func) == "super().__init__"
        and any(k.arg is None and ast.unparse(k.value) == name for k in call.keywords)
        for call in calls
    )


def _read_arguments(arguments: ast.arguments, owner: str, module: str) -> Options:
    tree = _source(module)
    names = {} if tree is None else dict(_aliases(tree, module))
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    pairs = [*zip(positional, defaults, strict=True)][1:]  # without self
    pairs += zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    named = {}
    for argument, default in pairs:
        hint = read_hint(argument.annotation, names) if argument.annotation else Any
        named[argument.arg] = Option(hint, REQUIRED if default is None else _literal(default))
    return Options(owner, named, arguments.kwarg is not None)


def _aliases(tree: ast.Module, module: str) -> Iterator[tuple[str, ast.expr]]:
    """Type aliases of a module, `Norm = Literal[...]`, its own and those it imports from readable modules."""
    for name, origin in _imports(tree, module):
        source, _, original = origin.rpartition(".")
        other = _source(source) if source.startswith("dvsn.") and source != module else None
        found = {} if other is None else {n: e for n, e in _assignments(other) if n == original}
        yield from ((name, expression) for expression in found.values())
    yield from _assignments(tree)


def _assignments(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    for node in tree.body:
        if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
            continue
        if isinstance(node.value, ast.Subscript | ast.BinOp | ast.Name | ast.Attribute):
            yield node.targets[0].id, node.value


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ...
