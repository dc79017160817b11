//! Texts that are no PTX, or PTX that cannot be executed: errors with the line and what stands there.

use super::module;
use proptest::prelude::*;
use ptx_sim::{Module, ParseErrorKind};

const REDUCE: &str = include_str!("../ptx/reduce.ptx");

#[test]
fn a_module_of_llvm() {
    let module = Module::parse(REDUCE).expect("PTX");
    assert_eq!((module.version(), module.target()), ((7, 1), "sm_86"));
    let names: Vec<_> = module.kernels().map(ptx_sim::Kernel::name).collect();
    assert_eq!(names, ["saxpy", "reduce"]);
    let kernel = module.kernel("reduce").expect("it is there");
    let places: Vec<_> = kernel.params().iter().map(|param| (param.offset, param.size)).collect();
    assert_eq!(places, [(0, 8), (8, 8), (16, 4)]);
    assert_eq!(kernel.static_shared_bytes(), 1024);
    assert_eq!(kernel.opcodes()["fma.rn.f32"], 8);
    assert_eq!(kernel.declared_registers(), [3, 2, 33, 8, 0]);
    assert!(module.kernel("other").is_none());
}

/// The error of a body's only line.
fn error(body: &str) -> (String, ParseErrorKind) {
    let error = Module::parse(&module(body)).expect_err(body);
    assert_eq!(error.line, 24, "{error}");
    (error.text, error.kind)
}

#[test]
fn errors_name_line_and_text() {
    let (text, kind) = error("frobnicate.b32   %r1, %r2;");
    assert_eq!(text, "frobnicate.b32 %r1, %r2");
    assert_eq!(kind, ParseErrorKind::UnknownInstruction("frobnicate.b32".to_owned()));
    let unknown = |body: &str| matches!(error(body).1, ParseErrorKind::UnknownInstruction(_));
    assert!(unknown("add.rn.what.f32 %r1, %r2, %r3;"));
    assert!(unknown("mma.sync.aligned.m1n1k1.row.col.f32 {%r1}, {%r1}, {%r1}, {%r1};"));
    assert!(unknown("setp.zz.u32 %p1, %r1, %r2;"));
    assert!(unknown("cvt.s32.f32 %r1, %r2;"));
    assert!(matches!(error("add.u32 %r1, %r2;").1, ParseErrorKind::Operand { .. }));
    assert!(matches!(error("add.u32 %r1, %r2, %d3;").1, ParseErrorKind::Operand { index: 2, .. }));
    assert!(matches!(error("add.u32 %p1, %r2, %r3;").1, ParseErrorKind::Operand { index: 0, .. }));
    assert_eq!(error("mov.b32 %r1, %r99;").1, ParseErrorKind::UnknownName("%r99".to_owned()));
    assert_eq!(error("bra NOWHERE;").1, ParseErrorKind::UnknownName("NOWHERE".to_owned()));
    assert!(matches!(error("call.uni nobody;").1, ParseErrorKind::UnknownName(_)));
    assert!(matches!(error("mov.b32 %r1 %r2;").1, ParseErrorKind::Syntax { .. }));
    assert!(matches!(error("mov.b32 %r1, 0f12;").1, ParseErrorKind::Lexical(_)));
    assert!(matches!(error(".what 5;").1, ParseErrorKind::UnknownDirective(_)));
    assert!(matches!(error("@%r1 ret;").1, ParseErrorKind::Syntax { .. }));
}

#[test]
fn modules_that_cannot_be() {
    let kind = |text: &str| Module::parse(text).expect_err("no module").kind;
    assert!(matches!(kind(""), ParseErrorKind::Syntax { .. }));
    assert!(matches!(
        kind(".target sm_86\n.address_size 64\n.visible .entry k() { ret; }"),
        ParseErrorKind::Syntax { .. }
    ));
    let head = ".version 7.1\n.target sm_86\n.address_size 64\n";
    assert!(matches!(kind(&head.replace("64", "32")), ParseErrorKind::Unsupported(_)));
    assert!(matches!(kind(&format!("{head}.entry k() {{ ret;")), ParseErrorKind::Syntax { .. }));
    assert!(matches!(
        kind(&format!("{head}.entry k() {{ ret; }} .entry k() {{ ret; }}")),
        ParseErrorKind::DuplicateName(_)
    ));
    let recursive = ".func f() { call.uni f; ret; }\n.entry k() { call.uni f; ret; }";
    assert!(matches!(kind(&format!("{head}{recursive}")), ParseErrorKind::Unsupported(_)));
    let greedy = ".entry k() { .reg .b32 %r<4000000000>; ret; }";
    assert!(matches!(kind(&format!("{head}{greedy}")), ParseErrorKind::Unsupported(_)));
    assert!(matches!(kind(&format!("{head}\"")), ParseErrorKind::Lexical(_)));
}

proptest! {
    /// Whatever stands in the text, the parser returns.
    #[test]
    fn mutated_modules_never_panic(
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..4u8, any::<prop::sample::Index>(), "[ -~]{0,3}"), 1..8)
    ) {
        let mut bytes = REDUCE.as_bytes().to_vec();
        for (at, what, other, text) in edits {
            let at = at.index(bytes.len());
            match what {
                0 => { bytes.remove(at); }
                1 => { bytes.splice(at..at, text.bytes()); }
                2 => { let from = other.index(bytes.len()); bytes[at] = bytes[from]; }
                _ => {
                    let from = other.index(bytes.len());
                    let piece: Vec<u8> = bytes[from..(from + 40).min(bytes.len())].to_vec();
                    bytes.splice(at..at, piece);
                }
            }
        }
        let _ = Module::parse(&String::from_utf8_lossy(&bytes));
    }
}
