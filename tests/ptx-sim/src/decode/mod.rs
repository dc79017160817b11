//! From the tree to code: every opcode becomes a function on lanes or a description of an effect, every
//! operand an index of a register. Constants and special registers are registers that hold their value from
//! the start, so that executing an instruction asks nothing about its operands.

pub(crate) mod bulk;
mod control;
mod convert;
mod copy;
mod cx;
mod exact;
mod float;
mod flow;
mod half;
mod integer;
pub(crate) mod lanes;
mod link;
mod logic;
mod memory;
mod module;
mod moves;
pub(crate) mod op;
mod sync;
pub(crate) mod tensor;
mod wide;

pub use module::{Kernel, Module, Param};

pub(crate) use link::{Code, Const};
pub(crate) use module::AddressOf;

use cx::{Cx, Result};

/// Decodes an instruction by the first part of its opcode.
fn instruction(cx: &mut Cx<'_, '_>, base: &str) -> Result<()> {
    match base {
        "mov" | "cvta" | "selp" | "slct" | "isspacep" => moves::decode(cx, base),
        "setp" | "set" => logic::compare(cx, base),
        "and" | "or" | "xor" | "not" | "cnot" | "lop3" | "shl" | "shr" | "shf" | "prmt" | "bfe" | "bfi"
        | "bfind" | "brev" | "clz" | "popc" | "bmsk" => logic::decode(cx, base),
        "add" | "sub" | "mul" | "mad" | "fma" | "div" | "rem" | "min" | "max" | "abs" | "neg" => {
            match cx.mods.last().copied().unwrap_or("") {
                "f32" | "f64" => float::decode(cx, base),
                "f16" | "bf16" | "f16x2" | "bf16x2" => half::decode(cx, base),
                "u64" | "s64" | "b64" => wide::decode(cx, base),
                _ => integer::decode(cx, base),
            }
        }
        "addc" | "subc" | "madc" | "mul24" | "sad" | "dp4a" | "dp2a" => {
            if matches!(cx.mods.last(), Some(&"u64" | &"s64")) {
                wide::decode(cx, base)
            } else {
                integer::decode(cx, base)
            }
        }
        "rcp" | "sqrt" | "rsqrt" | "ex2" | "lg2" | "sin" | "cos" | "tanh" | "testp" | "copysign" => {
            if matches!(cx.mods.last(), Some(&"f16" | &"bf16" | &"f16x2" | &"bf16x2")) {
                half::decode(cx, base)
            } else {
                float::decode(cx, base)
            }
        }
        "cvt" => convert::decode(cx),
        "ld" | "ldu" | "st" | "atom" | "red" | "prefetch" | "prefetchu" | "applypriority" | "discard" => {
            memory::decode(cx, base)
        }
        "bra" | "brx" | "call" | "ret" | "exit" | "trap" | "brkpt" | "nanosleep" | "pmevent"
        | "griddepcontrol" | "setmaxnreg" => control::decode(cx, base),
        "bar" | "barrier" | "shfl" | "vote" | "match" | "activemask" | "redux" | "elect" | "membar"
        | "fence" => sync::decode(cx, base),
        "mbarrier" => sync::mbarrier(cx),
        "cp" => copy::decode(cx),
        _ => tensor::decode(cx, base),
    }
}
