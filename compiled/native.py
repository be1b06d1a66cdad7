"""Rewrite a module for mypyc: Structs of msgspec become plain classes, constants become Final, causes are kept.

Interpreted, a Struct is the quickest value there is, so the source has Structs. Compiled code reads the attributes of a
native class at once, but those of a Struct as slowly as those of any foreign object: that would eat half of what
compiling gains. So the classes are rewritten for the compiler: same fields, same defaults, same equality, same hash.
And it looks a global up by its name each time, unless it is Final. Of `raise … from …`, mypyc forgets the second half.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Field:
    """One field of a Struct, as source."""

    name: str
    kind: str
    default: str | None


def native(text: str) -> tuple[str, dict[int, int]]:
    """Return the source of a module as the compiler should see it, and which line of `text` each of its lines is from.

    Structs with `dict=True` stay: they are made for attributes that nobody has declared.
    """
    module = ast.parse(text)
    classes = {one.name: one for one in module.body if isinstance(one, ast.ClassDef)}
    body: list[ast.stmt] = []
    for one in module.body:
        if isinstance(one, ast.ClassDef) and _is_struct(one):
            body.append(_plain(one))
        elif isinstance(one, ast.Assign):
            body += _final(one, classes)
        else:
            body.append(one)
        if isinstance(one, ast.ImportFrom) and one.module == "__future__":
            body += _parsed("from typing import Final", one)
    module.body = body
    module = _Causes().visit(module)
    made = ast.unparse(module)
    return made, {new.lineno: old.lineno for old, new in _pairs(module, ast.parse(made))}


def _parsed(source: str, origin: ast.stmt) -> list[ast.stmt]:
    """Parse what stands for a statement."""
    body = ast.parse(source).body
    for part in body:
        for node in ast.walk(part):
            if isinstance(node, ast.stmt):
                node.lineno = origin.lineno
    return body


def _pairs(old: ast.AST, new: ast.AST) -> Iterator[tuple[ast.stmt, ast.stmt]]:
    """The statements below two equal nodes."""
    for one, other in zip(ast.iter_child_nodes(old), ast.iter_child_nodes(new), strict=True):
        if isinstance(one, ast.stmt) and isinstance(other, ast.stmt):
            yield one, other
        if isinstance(one, ast.stmt | ast.ExceptHandler | ast.match_case):
            yield from _pairs(one, other)


class _Causes(ast.NodeTransformer):
    """`raise error from cause` in three steps."""

    def __init__(self) -> None:
        self._number = 0

    def visit_Raise(self, one: ast.Raise) -> ast.AST | list[ast.stmt]:
        if one.cause is None or one.exc is None:
            return one
        self._number += 1
        name = f"_raised_{self._number}"
        steps = f"{name} = {ast.unparse(one.exc)}\n{name}.__cause__ = {ast.unparse(one.cause)}\nraise {name}"
        return _parsed(steps, one)


def _final(one: ast.Assign, classes: dict[str, ast.ClassDef]) -> list[ast.stmt]:
    """`NAME = value` as `NAME: Final = value`; `A, B = Enumeration`, which names all its members, as one for each."""
    target, value = one.targets[0], ast.unparse(one.value)
    if isinstance(target, ast.Name) and _is_constant(target.id, one.value):
        return _parsed(f"{target.id}: Final = {value}", one)
    if isinstance(target, ast.Tuple) and value in classes:
        members = [ast.unparse(part.targets[0]) for part in classes[value].body if isinstance(part, ast.Assign)]
        names = [ast.unparse(name) for name in target.elts]
        pairs = zip(names, members, strict=True)
        return _parsed("\n".join(f"{name}: Final = {value}.{member}" for name, member in pairs), one)
    return [one]


def _is_constant(name: str, value: ast.expr) -> bool:
    """No variable of types, and no tuple: of those, mypyc believes that they were never set."""
    return name.isupper() and len(name) > 1 and not isinstance(value, ast.Tuple)


def _is_struct(one: ast.ClassDef) -> bool:
    named = any(isinstance(base, ast.Name) and base.id == "Struct" for base in one.bases)
    return named and "dict" not in _options(one)


def _options(one: ast.ClassDef) -> dict[str, bool]:
    """What is said behind the base class."""
    return {option.arg or "": ast.literal_eval(option.value) for option in one.keywords}


def _fields(one: ast.ClassDef) -> list[Field]:
    return [
        Field(ast.unparse(part.target), ast.unparse(part.annotation), ast.unparse(part.value) if part.value else None)
        for part in one.body
        if isinstance(part, ast.AnnAssign)
    ]


def _plain(one: ast.ClassDef) -> ast.ClassDef:
    options, fields = _options(one), _fields(one)
    written = {part.name for part in one.body if isinstance(part, ast.FunctionDef)}
    names = tuple(field.name for field in fields)
    lines = [f"class {one.name}:", *(f"    {field.name}: {field.kind}" for field in fields)]
    lines.append(f"    __match_args__: Final = {names!r}")
    cached = options.get("cache_hash", False)
    lines += _initializer(fields, cached)
    if options.get("eq", True) and "__eq__" not in written:
        lines += _equality(one.name, names)
        if options.get("frozen", False):
            lines += _hash(names, cached)
    if "__repr__" not in written:
        values = ", ".join(f"{name}={{self.{name}!r}}" for name in names)
        lines += ["    def __repr__(self) -> str:", f"        return f'{one.name}({values})'"]
    plain = _parsed("\n".join(lines), one)[0]
    assert isinstance(plain, ast.ClassDef)
    plain.body += [part for part in one.body if not isinstance(part, ast.AnnAssign | ast.Expr)]
    plain.decorator_list = one.decorator_list
    return plain


def _initializer(fields: list[Field], cached: bool) -> list[str]:
    arguments = [f"{field.name}: {field.kind}" + (f" = {field.default}" if field.default else "") for field in fields]
    body = [f"        self.{field.name} = {field.name}" for field in fields]
    if cached:
        body.append("        self._hash = 0")
    return [f"    def __init__({', '.join(['self', *arguments])}) -> None:", *(body or ["        pass"])]


def _equality(name: str, names: tuple[str, ...]) -> list[str]:
    same = " and ".join([f"isinstance(other, {name})", *(f"self.{one} == other.{one}" for one in names)])
    return ["    def __eq__(self, other: object) -> bool:", f"        return self is other or ({same})"]


def _hash(names: tuple[str, ...], cached: bool) -> list[str]:
    values = "".join(f"self.{name}, " for name in names)
    if not cached:
        return ["    def __hash__(self) -> int:", f"        return hash(({values}))"]
    return [
        "    def __hash__(self) -> int:",
        "        if not self._hash:",
        f"            self._hash = hash(({values})) or 1",
        "        return self._hash",
    ]
