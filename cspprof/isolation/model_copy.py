"""A structural copy of a model: its modules and what they hold are copied, its tensors are replaced by a function.

The copy runs instead of the model. A forward that changes attributes, flags, hooks or tables changes only the copy, and
another thread can use the model meanwhile. To make the copy, no code of the user runs: no `__init__`, `__copy__`,
`__setattr__` or `train`.
"""

from __future__ import annotations

import argparse
import copy
import functools
import random
import sys
import types
import weakref
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from operator import is_
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from torch.utils.hooks import RemovableHandle

HOOK_TABLES = tuple(name for name, value in vars(nn.Module()).items() if "hooks" in name and value is not None)
"""Attributes with the hooks of a module. Each is an ordered dict."""
TABLES = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set", *HOOK_TABLES)
STANDARD = frozenset(vars(nn.Module()))
"""Attributes that every module has."""

UNCHANGED = frozenset({
    int, float, bool, complex, str, bytes, range, type(None), type(...), type, types.ModuleType, torch.dtype,
    torch.device, torch.Size, torch.layout, torch.memory_format, torch._ops.OpOverload, torch._ops.OpOverloadPacket,
})  # fmt: skip
"""Types of values that are immutable and refer to no module."""

SHARED_PACKAGES = frozenset({"torch", "numpy", "builtins"}) | (sys.stdlib_module_names - {"__main__"})
"""Packages whose objects are not copied: loggers, locks, thread pools, graphs, process groups …"""
COPIED = (RemovableHandle, argparse.Namespace, torch.optim.Optimizer)
"""Exceptions from `SHARED_PACKAGES`."""
ARRAY_LIMIT = 1 << 26
"""Bytes of the largest NumPy array that is copied."""


class ModelCopy:
    """Copies modules and all that they refer to, each object once, so that the copies refer to copies.

    `tensors` are pairs of a tensor and what to use instead of it. For other tensors in modules `replace` returns that.

    What is found in attributes of modules is copied: modules that are not registered, lists, dicts, and objects of the
    user's and of other packages. A function of the user is copied only if its closure or defaults refer to a module;
    whatever else it refers to stays the same object, since a hook may collect results in it.
    """

    def __init__(
        self,
        modules: list[nn.Module],
        tensors: list[tuple[torch.Tensor, torch.Tensor]],
        replace: Callable[[torch.Tensor], torch.Tensor],
    ) -> None:
        self._replace = replace
        self.tensors = [new for _, new in tensors]
        """All tensors that the copies hold."""
        self._copies: dict[int, tuple[Any, Any]] = {id(original): (original, new) for original, new in tensors}
        """Original and copy by the id of the original, which the tuple keeps alive."""
        self._script_objects: dict[int, Any] = {}
        self._unfilled: deque[Callable[[], None]] = deque()
        """Fill a copy whose original may refer to itself."""
        self._functions: deque[tuple[Any, Any, Any]] = deque()
        """A container, a key, and the function that the container holds there. Functions come last: whether one is
        copied depends on which modules and containers are."""
        self.created: list[nn.Module] = []
        """All copied modules: those of the tree, and others that they refer to."""
        for _, new in tensors:
            self._copy_attributes_of_tensor(new)
        self.modules = [self.copy(module) for module in modules]
        """The copies of the modules of the tree."""
        while self._unfilled or self._functions:
            if self._unfilled:
                self._unfilled.popleft()()
            else:
                table, key, function = self._functions.popleft()
                table[key] = self.copy(function)

    def release(self) -> None:
        """Drop the references between copies. A module class with `__del__` is replaced, so that it does not run."""
        for module in self.created:
            if hasattr(type(module), "__del__"):
                object.__setattr__(module, "__class__", nn.Module)
        self._copies.clear()

    def copy(self, value: Any) -> Any:
        """The value to use in the copy of the model instead of `value`."""
        kind: Any = type(value)
        if kind in UNCHANGED:
            return value
        found = self._copies.get(id(value))
        if found is not None:
            return found[1]
        return _method_for(kind)(self, value)

    def _remember(self, value: Any, new: Any) -> Any:
        self._copies[id(value)] = (value, new)
        return new

    # -- modules and other objects with attributes ------------------------------------------------

    def _module(self, module: nn.Module) -> Any:
        new = object.__new__(type(module))
        attributes = vars(module).copy()
        object.__setattr__(new, "__dict__", attributes)
        self._remember(module, new)
        self.created.append(new)
        self._unfilled.append(functools.partial(self._fill_module, module, new, attributes))
        return new

    def _script_module(self, module: Any) -> Any:
        """The module with C++ objects of its own, which share its tensors."""
        wrap = torch.jit._recursive.wrap_cpp_module
        return self._remember(module, wrap(self._script_object(module._c)))

    def _script_object(self, original: Any) -> Any:
        found = self._script_objects.get(hash(original))  # many Python objects refer to one in C++
        if found is not None:
            return found
        new = self._script_objects[hash(original)] = copy.copy(original)
        for name, child in torch._C.ModuleDict(original).items():
            new.setattr(name, self._script_object(child))
        tables: tuple[Any, ...] = (torch._C.ParameterDict(original), torch._C.BufferDict(original))
        for table in tables:
            for name, tensor in table.items():
                new.setattr(name, self.copy(tensor))
        return new

    def _fill_module(self, module: nn.Module, new: nn.Module, attributes: dict[str, Any]) -> None:
        for name in TABLES:
            table = attributes.get(name)
            if table:
                is_tensor_table = name in ("_parameters", "_buffers")
                attributes[name] = self._tensor_table(table) if is_tensor_table else self.copy(table)
            elif table is not None:
                attributes[name] = type(table)()
        own = attributes.keys() - STANDARD
        if "_compiled_call_impl" in own:  # Module.compile() of torch 2.13 and 2.14: run what was compiled
            del attributes["_compiled_call_impl"]
            own.remove("_compiled_call_impl")
        if type(module).__name__ == "OptimizedModule" and "_orig_mod" in attributes["_modules"]:
            attributes["forward"] = self.copy(module._modules["_orig_mod"]).__call__
            own -= {"forward", "dynamo_ctx"}
        self._copy_items(attributes, own)
        self._copy_slots(module, new)

    def _tensor_table(self, table: Any) -> Any:
        found = self._copies.get(id(table))
        if found is not None:
            return found[1]
        new = table.copy()
        for name, tensor in table.items():
            if tensor is not None:
                held = self._copies.get(id(tensor))
                new[name] = self._tensor(tensor) if held is None else held[1]
        return self._remember(table, new)

    def _object(self, value: Any) -> Any:
        new = object.__new__(type(value))
        self._remember(value, new)

        def fill() -> None:
            attributes = _attributes(value)
            if attributes is not None:
                attributes = attributes.copy()
                self._copy_items(attributes, attributes.keys())
                object.__setattr__(new, "__dict__", attributes)
            self._copy_slots(value, new)

        self._unfilled.append(fill)
        return new

    def _copy_items(self, table: dict[Any, Any], keys: Iterable[Any]) -> None:
        """Replace the values of a dict that is a copy already."""
        for key in tuple(keys):
            value = table[key]
            kind = type(value)
            if kind in UNCHANGED or (kind is tuple and UNCHANGED.issuperset(map(type, value))):
                continue
            if kind is types.FunctionType or kind is types.MethodType:
                self._functions.append((table, key, value))
            else:
                table[key] = self.copy(value)

    def _copy_slots(self, value: Any, new: Any) -> None:
        cls: Any = type(value)
        for slot in _slots(cls):
            try:
                held = slot.__get__(value)
            except AttributeError:  # not set
                continue
            slot.__set__(new, self.copy(held))

    # -- containers -------------------------------------------------------------------------------

    def _dict(self, value: Any) -> Any:
        cls = type(value)
        if cls is dict or cls is OrderedDict:
            new = value.copy()
        elif isinstance(value, defaultdict):
            new = defaultdict.__new__(cls)
            defaultdict.__init__(new, self.copy(value.default_factory), value)
        elif isinstance(value, OrderedDict):
            new = OrderedDict.__new__(cls)
            OrderedDict.update(new, OrderedDict.items(value))
        else:
            new = dict.__new__(cls)
            dict.update(new, dict.items(value))
        self._remember(value, new)
        base: Any = OrderedDict if isinstance(value, OrderedDict) else dict

        def fill() -> None:
            if any(type(key) not in UNCHANGED for key in base.keys(new)):
                pairs = [(self.copy(key), held) for key, held in base.items(new)]
                base.clear(new)
                base.update(new, pairs)
            if cls is base or cls is defaultdict:
                self._copy_items(new, new.keys())
            else:
                for key, held in list(base.items(new)):
                    base.__setitem__(new, key, self.copy(held))
            self._fill_subclass(value, new)

        self._unfilled.append(fill)
        return new

    def _list(self, value: Any) -> Any:
        cls = type(value)
        new = list.__new__(cls)
        self._remember(value, new)
        list.extend(new, list.__iter__(value))

        def fill() -> None:
            for i, held in enumerate(list.__iter__(new)):
                kind = type(held)
                if cls is list and (kind is types.FunctionType or kind is types.MethodType):
                    self._functions.append((new, i, held))
                elif kind not in UNCHANGED:
                    list.__setitem__(new, i, self.copy(held))
            self._fill_subclass(value, new)

        self._unfilled.append(fill)
        return new

    def _set(self, value: Any) -> Any:
        new = set.__new__(type(value))
        self._remember(value, new)

        def fill() -> None:
            set.update(new, [self.copy(item) for item in set.__iter__(value)])
            self._fill_subclass(value, new)

        self._unfilled.append(fill)
        return new

    def _deque(self, value: Any) -> Any:
        new = deque.__new__(type(value))
        deque.__init__(new, (), value.maxlen)
        self._remember(value, new)

        def fill() -> None:
            deque.extend(new, [self.copy(item) for item in list(deque.__iter__(value))])
            self._fill_subclass(value, new)

        self._unfilled.append(fill)
        return new

    def _fill_subclass(self, value: Any, new: Any) -> None:
        """Copy what a subclass of a container has besides the items."""
        attributes = _attributes(value)
        if attributes:
            own = attributes.copy()
            self._copy_items(own, own.keys())
            _attributes(new).update(own)
        self._copy_slots(value, new)

    def _immutable(self, value: Any) -> Any:
        """A tuple or frozenset."""
        items = _items(value)
        new = [self.copy(item) for item in items]
        if all(map(is_, new, items)):
            return value
        base: Any = tuple if isinstance(value, tuple) else frozenset
        return self._remember(value, base.__new__(type(value), new))

    def _simple_namespace(self, value: Any) -> Any:
        new = self._remember(value, types.SimpleNamespace())
        self._unfilled.append(lambda: new.__dict__.update({k: self.copy(v) for k, v in vars(value).items()}))
        return new

    # -- functions and references -----------------------------------------------------------------

    def _function(self, value: Any) -> Any:
        """The function, or one that refers to copies if its closure, defaults, attributes or globals name modules."""
        cells = value.__closure__ or ()
        contents = [_content(cell) for cell in cells]
        new_contents = [self._outside(content) for content in contents]
        new_cells = tuple(
            cell if a is b else types.CellType(b) for cell, a, b in zip(cells, contents, new_contents, strict=True)
        )
        own_globals = value.__globals__
        replaced = {name: self.copy(module) for name, module in _global_modules(value)}
        if replaced:
            own_globals = {**own_globals, **replaced}
        defaults = self._outside(value.__defaults__)
        named = self._outside(value.__kwdefaults__)
        attributes = {k: self._outside(v) for k, v in value.__dict__.items()}
        same = new_cells == cells and not replaced and defaults is value.__defaults__ and named is value.__kwdefaults__
        if same and all(attributes[k] is v for k, v in value.__dict__.items()):
            return value
        new = types.FunctionType(value.__code__, own_globals, value.__name__, defaults, new_cells)
        new.__kwdefaults__ = named
        new.__dict__.update(attributes)
        new.__qualname__, new.__module__, new.__doc__ = value.__qualname__, value.__module__, value.__doc__
        self._remember(value, new)
        for cell, content in zip(new_cells, new_contents, strict=True):  # a function that refers to itself
            if content is value:
                cell.cell_contents = new
        return new

    def _method(self, value: Any) -> Any:
        owner, function = self.copy(value.__self__), value.__func__
        return value if owner is value.__self__ else types.MethodType(function, owner)

    def _builtin_method(self, value: Any) -> Any:
        owner = value.__self__
        if owner is None or type(owner) in UNCHANGED:
            return value
        new = self.copy(owner)
        return value if new is owner else getattr(new, value.__name__)

    def _partial(self, value: Any) -> Any:
        parts = (value.func, value.args, value.keywords)
        func, args, keywords = map(self._outside, parts)
        if func is parts[0] and args is parts[1] and keywords is parts[2]:
            return value
        return self._remember(value, type(value)(func, *args, **keywords))

    def _lru_cache(self, value: Any) -> Any:
        function = self._outside(value.__wrapped__)
        if function is value.__wrapped__:
            return value
        return self._remember(value, functools.lru_cache(**value.cache_parameters())(function))

    def _weakref(self, value: Any) -> Any:
        target = value()
        if target is None:
            return value
        new = self._outside(target)
        return value if new is target else weakref.ref(new)

    def _weak_container(self, value: Any) -> Any:
        new = self._remember(value, type(value)())

        def fill() -> None:
            if isinstance(value, weakref.WeakSet):
                for item in list(value):
                    new.add(self._outside(item))
            else:
                for key, held in list(value.items()):
                    new[self._outside(key)] = self._outside(held)

        self._unfilled.append(fill)
        return new

    def _outside(self, value: Any) -> Any:
        """What a function uses instead of `value`: a copy if the value refers to a module or to what was copied."""
        return self.copy(value) if self._refers_to_a_module(value) else value

    def _refers_to_a_module(self, value: Any) -> bool:
        seen: dict[int, Any] = {}
        waiting = [value]
        while waiting:
            item = waiting.pop()
            kind = type(item)
            if kind in UNCHANGED or id(item) in seen:
                continue
            if id(item) in self._copies:
                return self._copies[id(item)][1] is not item
            if issubclass(kind, nn.Module):
                return True
            seen[id(item)] = item
            waiting.extend(_referents(item))
        return False

    # -- values -----------------------------------------------------------------------------------

    def _tensor(self, value: Any) -> Any:
        new = self._replace(value)
        self.tensors.append(new)
        self._copy_attributes_of_tensor(new)
        return self._remember(value, new)

    def _copy_attributes_of_tensor(self, new: torch.Tensor) -> None:
        """Copy what the user attached to a tensor. A wrapper keeps the tensors inside it there."""
        if new.__dict__ and not is_traceable_wrapper_subclass(new):
            self._unfilled.append(functools.partial(self._copy_items, new.__dict__, tuple(new.__dict__)))

    def _generator(self, value: Any) -> Any:
        return self._remember(value, value.clone_state())

    def _python_random(self, value: Any) -> Any:
        new = random.Random()
        new.setstate(value.getstate())
        return self._remember(value, new)

    def _by_value(self, value: Any) -> Any:
        return self._remember(value, copy.deepcopy(value))

    def _array(self, value: Any) -> Any:
        if value.nbytes > ARRAY_LIMIT or value.dtype.hasobject:
            return value
        return self._remember(value, value.copy())

    def _same(self, value: Any) -> Any:
        return value


@functools.cache
def _method_for(cls: Any) -> Callable[[ModelCopy, Any], Any]:
    """How to copy values of a class."""
    c = ModelCopy
    exact: dict[type, Callable[[ModelCopy, Any], Any]] = {
        types.FunctionType: c._function, types.MethodType: c._method, types.BuiltinFunctionType: c._builtin_method,
        types.SimpleNamespace: c._simple_namespace, functools.partial: c._partial, weakref.ref: c._weakref,
        functools._lru_cache_wrapper: c._lru_cache, weakref.WeakSet: c._weak_container,
        weakref.WeakKeyDictionary: c._weak_container, weakref.WeakValueDictionary: c._weak_container,
        torch.Generator: c._generator, random.Random: c._python_random, bytearray: c._by_value,
        torch.Tensor: c._tensor, nn.Parameter: c._tensor,
    }  # fmt: skip
    if cls in exact:
        return exact[cls]
    if issubclass(cls, nn.Module):
        return c._script_module if issubclass(cls, torch.jit.ScriptModule) else c._module
    if issubclass(cls, torch.Tensor):
        return c._same  # a parameter of such a class is in `_copies`
    if issubclass(cls, Enum | type):
        return c._same
    package, _, rest = cls.__module__.partition(".")
    if package == "numpy":
        if cls.__name__ == "ndarray":
            return c._array
        return c._by_value if rest.startswith("random") else c._same
    for base, method in _CONTAINERS.items():
        if issubclass(cls, base):
            return method
    return c._object if _is_plain(cls) else c._same


_CONTAINERS: dict[type, Callable[[ModelCopy, Any], Any]] = {
    dict: ModelCopy._dict, list: ModelCopy._list, set: ModelCopy._set, deque: ModelCopy._deque,
    tuple: ModelCopy._immutable, frozenset: ModelCopy._immutable,
}  # fmt: skip


def _is_plain(cls: Any) -> bool:
    """Whether an object of the class is no more than its attributes, so that a copy of these is a copy of it.

    Classes that define how they are created, copied or destroyed are left out: an object may be the only one.
    """
    if cls.__module__.partition(".")[0] in SHARED_PACKAGES and not issubclass(cls, COPIED):
        return False
    special = ("__del__", "__copy__", "__deepcopy__", "__reduce__", "__reduce_ex__", "__new__")
    if not issubclass(cls, COPIED) and any(name in vars(c) for c in cls.__mro__[:-1] for name in special):
        return False
    try:
        object.__new__(cls)
    except TypeError:  # a class of an extension module
        return False
    return True


@functools.cache
def _slots(cls: Any) -> tuple[Any, ...]:
    """The descriptors of the slots of a class."""
    found = [value for c in cls.__mro__ for value in vars(c).values() if type(value) is types.MemberDescriptorType]
    return tuple(slot for slot in found if slot.__objclass__.__module__ != "builtins")


def forget_classes() -> None:
    """Forget what is known about classes. It keeps them alive, and with them the modules that define them."""
    _method_for.cache_clear()
    _slots.cache_clear()


def _attributes(value: Any) -> Any:
    """The `__dict__` of an object, without calling a `__getattr__` of the user; None if it has none."""
    try:
        return object.__getattribute__(value, "__dict__")
    except AttributeError:
        return None


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not yet assigned
        return None


def _global_modules(function: types.FunctionType) -> Iterator[tuple[str, nn.Module]]:
    """The global variables of the function that are modules, such as `model` in a notebook."""
    waiting = [function.__code__]
    while waiting:
        code = waiting.pop()
        waiting.extend(constant for constant in code.co_consts if isinstance(constant, types.CodeType))
        for name in code.co_names:
            value: Any = function.__globals__.get(name)
            if issubclass(type(value), nn.Module):
                yield name, value


def _referents(value: Any) -> Iterator[Any]:
    """What a value refers to, as far as `ModelCopy` copies it."""
    kind: Any = type(value)
    method = _method_for(kind)
    if issubclass(kind, dict):
        yield from dict.keys(value)
        yield from dict.values(value)
    elif issubclass(kind, (list, tuple, set, frozenset, deque)):
        yield from _items(value)
    elif kind is types.FunctionType:
        yield from map(_content, value.__closure__ or ())
        yield from (value.__defaults__, value.__kwdefaults__, value.__dict__)
        yield from (module for _, module in _global_modules(value))
    elif kind is types.MethodType or kind is types.BuiltinFunctionType:
        yield value.__self__
    elif kind is functools.partial:
        yield from (value.func, value.args, value.keywords)
    elif kind is functools._lru_cache_wrapper:
        yield value.__wrapped__
    elif kind is weakref.ref:
        yield value()
    elif method is ModelCopy._weak_container:
        yield from list(value)
    elif method in (ModelCopy._object, ModelCopy._simple_namespace):
        yield _attributes(value)
        for slot in _slots(kind):
            try:
                yield slot.__get__(value)
            except AttributeError:
                continue


def _items(value: Any) -> list[Any]:
    """The items of a list, tuple, set or deque, without calling an `__iter__` of the user."""
    base: Any = next(base for base in _CONTAINERS if isinstance(value, base))
    return list(base.__iter__(value))
