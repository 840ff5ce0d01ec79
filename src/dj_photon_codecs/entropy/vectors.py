"""AVX2 version of the decoder's innermost step, for x86-64 processors.

LLVM vectorises most loops but not this one. AVX2 needs one instruction for eight look-ups (gather), and one to
distribute the next words among the low lanes (permute), which makes the step twice as fast. The result equals
:func:`.decoder.take_block`, which all other processors use.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import config, types
from numba.core.cgutils import get_or_insert_function
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from .._compiled import Array, Int, compiled, u64
from .model import LANES, SCALE, SCALE_BITS, STATE_LOW

_WIDTH = 8
_INT = ir.IntType(32)
_LONG = ir.IntType(64)
_VECTOR = ir.VectorType(_INT, _WIDTH)
_BYTE = ir.IntType(8)
_POINTER = ir.PointerType(_BYTE)

#: For each mask of low lanes: which of the next 8 words each lane takes.
_DEALT = np.array(
    [[bin(mask & ((1 << lane) - 1)).count("1") for lane in range(_WIDTH)] for mask in range(1 << _WIDTH)], np.int32
)


def available() -> bool:
    """Return True if numba compiles for a processor with AVX2, and does not check bounds."""
    triple, _, features = cpu_target.target_context.codegen().magic_tuple()
    return triple.startswith("x86_64") and "+avx2" in features.split(",") and not cast(Any, config).BOUNDSCHECK


def _all(value: int) -> Any:
    return ir.Constant(_VECTOR, [value] * _WIDTH)


def _taking(
    typingctx: Any, predicted: Any, shift: Any, tables: Any, slots: Any, words: Any, dealt: Any, states: Any,
    symbols: Any,
) -> Any:  # fmt: skip
    """Pop a symbol from each state, and return the number of words shifted in; arrays are passed as addresses."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        predicted, shift, tables, slots, words, dealt, states, symbols = arguments
        parts, insert = range(LANES // _WIDTH), cast(Any, get_or_insert_function)  # numba has no types

        def declared(name: str, *arguments: Any) -> Any:
            return insert(builder.module, ir.FunctionType(_VECTOR, arguments), name)

        gather = declared("llvm.x86.avx2.gather.d.d.256", _VECTOR, _POINTER, _VECTOR, _VECTOR, _BYTE)
        permute = declared("llvm.x86.avx2.permd", _VECTOR, _VECTOR)

        def at(address: Any, size: int, kind: Any) -> Any:
            moved = builder.add(address, size if isinstance(size, ir.Value) else _LONG(size))
            return builder.inttoptr(moved, ir.PointerType(kind))

        def load(address: Any, size: Any, kind: Any = _VECTOR) -> Any:
            return builder.load(at(address, size, kind), align=1)

        def store(value: Any, address: Any, size: int) -> None:
            builder.store(value, at(address, size, value.type), align=1)

        def look_up(array: Any, indices: Any) -> Any:
            return builder.call(gather, [_all(0), builder.inttoptr(array, _POINTER), indices, _all(-1), _BYTE(4)])

        undefined = ir.Constant(_VECTOR, ir.Undefined)
        shifts = builder.insert_element(undefined, builder.trunc(shift, _INT), _INT(0))
        shifts = builder.shuffle_vector(shifts, undefined, _all(0))
        old = [load(states, 4 * _WIDTH * part) for part in parts]
        entries = []
        for part in parts:
            table = look_up(tables, builder.lshr(load(predicted, 4 * _WIDTH * part), shifts))
            entries.append(look_up(slots, builder.or_(table, builder.and_(old[part], _all(SCALE - 1)))))
        used: Any = _LONG(0)
        for part, entry in zip(parts, entries, strict=True):
            store(builder.trunc(entry, ir.VectorType(_BYTE, _WIDTH)), symbols, _WIDTH * part)
            frequency = builder.add(builder.and_(builder.lshr(entry, _all(8)), _all(SCALE - 1)), _all(1))
            state = builder.mul(frequency, builder.lshr(old[part], _all(SCALE_BITS)))
            state = builder.add(state, builder.lshr(entry, _all(20)))
            low = builder.icmp_unsigned("<", state, _all(STATE_LOW))
            mask = builder.zext(builder.bitcast(low, _BYTE), _LONG)
            following = load(words, builder.mul(used, _LONG(2)), ir.VectorType(ir.IntType(16), _WIDTH))
            order = load(dealt, builder.mul(mask, _LONG(4 * _WIDTH)))
            word = builder.call(permute, [builder.zext(following, _VECTOR), order])
            filled = builder.or_(builder.shl(state, _all(16)), word)
            store(builder.select(low, filled, state), states, 4 * _WIDTH * part)
            used = builder.add(used, builder.ctpop(mask))
        return used

    return types.uint64(*[types.uint64] * 8), generate


_take: Any = intrinsic(_taking)


@compiled
def take_block(x: Int, first: Int, predicted: Array, stream: Any, place: Int, symbols: Array) -> Any:
    """Decode 32 symbols like :func:`.decoder.take_block`, from a :class:`.decoder.Stream`."""
    used = _take(
        u64(predicted.ctypes.data) + u64(4) * u64(x),
        u64(stream.shift),
        u64(stream.tables.ctypes.data) + u64(4) * u64(first),
        u64(stream.slots.ctypes.data),
        u64(stream.words.ctypes.data) + u64(2) * u64(place),
        u64(_DEALT.ctypes.data),
        u64(stream.states.ctypes.data),
        u64(symbols.ctypes.data) + u64(x),
    )
    return u64(place + used)
