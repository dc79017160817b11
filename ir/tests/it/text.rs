//! The text form: round trips, what the parser accepts, and what it says about what it does not.

use nemo_ir::graph::{Block, BlockBuilder, Call, Program, Value};
use nemo_ir::ops::Attr;
use nemo_ir::plan::Phase;
use nemo_ir::rope::{Llama3Scaling, RopeTable};
use nemo_ir::text::{parse_block, parse_program};
use nemo_ir::types::{Dim, Dtype, Symbol, Type};
use nemo_ir::verify::{verify_block, verify_program};
use proptest::prelude::*;

const HYBRID: &str = include_str!("hybrid.txt");

#[test]
fn the_canonical_text_of_a_program_prints_as_it_stands() {
    let program = parse_program(HYBRID).unwrap();
    assert_eq!(verify_program(&program), Ok(()));
    assert_eq!(program.to_string(), HYBRID);
    assert_eq!(program.calls.len(), 8);
    let call = Call { block: 2, layer: Some(5), prefix: "backbone.layers.5.".to_owned() };
    assert_eq!(program.calls[6], call);
}

#[test]
fn a_built_block_as_text() {
    let matrix = |rows: Symbol, width: u64| Type::new(Dtype::Bf16, [rows.into(), width.into()]);
    let scaling =
        Llama3Scaling { factor: 16.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_context: 8192 };
    let table = RopeTable { theta: 5e5, head_dim: 4, positions: 131_072, scaling: Some(scaling) };
    let mut b = BlockBuilder::new("attention");
    let dtype = || vec![Attr::Dtype(Dtype::Bf16)];
    let x = b.input("x", matrix(Symbol::T, 8));
    let qk = b.weight("qk", Type::new(Dtype::Bf16, [12.into(), 8.into()]));
    let p = b.op("linear", &[x, qk], dtype()).unwrap();
    let q = b.op("slice", &[p], vec![0.into(), 8.into()]).unwrap();
    let k = b.op("slice", &[p], vec![8.into(), 4.into()]).unwrap();
    let table = b.table(table);
    let q = b.op("rope", &[q, table], dtype()).unwrap();
    let pages = Dim::symbol(Symbol::N);
    let kv = b.state("kv", Type::new(Dtype::Bf16, [pages, 2.into(), 1.into(), 64.into(), 4.into()]));
    let kv = b.op("kv_append", &[k, k, kv], vec![]).unwrap();
    let y = b.op("paged_attention", &[q, kv], vec![Attr::Float(0.5), 0.into(), Dtype::Bf16.into()]).unwrap();
    let y = b.op("add", &[x, y], dtype()).unwrap();
    b.output("x", y);
    let block = b.finish();
    assert_eq!(verify_block(&block), Ok(()));
    insta::assert_snapshot!(block.to_string());
    assert_eq!(parse_block(&block.to_string()), Ok(block));
}

#[test]
fn any_layout_order_and_comment_reads_the_same() {
    let plain = "block b(%x: f32[T,4]) {
        weight @w: f32[4]
        %0 = rms_norm(%x, @w) {eps: 1e-5, group: 2, dtype: f32} : f32[T,4]
        table #0 = rope {theta: 10000.0, head_dim: 2, positions: 8}
        %1 = rope(%0, #0) {dtype: bf16} : bf16[T,4]
        return y = %1
    }";
    let other = "// A comment.
        block b(%x:f32[T,4]){table #angles=rope{theta:1e4,head_dim:2,positions:8} weight @w:f32[4]
        %normed=rms_norm(%x,@w){dtype:f32,group:2,eps:0.00001}:f32[T,4] // Another.
        %1=rope(%normed,#angles,$positions){dtype:bf16}:bf16[T,4] return y=%1}";
    assert_eq!(parse_block(other), parse_block(plain));
    assert!(parse_block(plain).is_ok());
}

#[test]
fn many_layers_stay_short() {
    let mut program = parse_program(HYBRID).unwrap();
    let layer = |layer: u32| Call {
        block: if layer.is_multiple_of(7) { 3 } else { 2 },
        layer: Some(layer),
        prefix: format!("model.layers.{layer}."),
    };
    program.calls.splice(1..7, (0..162).map(layer));
    let text = program.to_string();
    assert_eq!(parse_program(&text), Ok(program));
    let calls = text.split("calls {").nth(1).unwrap();
    assert!(calls.lines().count() < 16 && calls.lines().all(|line| line.len() <= 100), "{calls}");
}

#[test]
fn what_the_parser_expects() {
    let op = |text: &str| {
        format!(
            "block b(%x: f32[T,4]) {{\n  state &s: f32[S,3,4]\n  weight @w: f32[4,4]\n  {text}\n  return y = %0\n}}"
        )
    };
    let cases = [
        String::new(),
        "block b(%x: f32[T,4])".to_owned(),
        "block B() { return y = %x }".to_owned(),
        "block b(%x: f33[T]) {".to_owned(),
        "block b(%x: f32[Q]) {".to_owned(),
        "block b(%x: f32[0T]) {".to_owned(),
        "block b(%x: f32[99999999999999999999]) {".to_owned(),
        "block b(%x: f32[1,1,1,1,1,1,1,1,1]) {".to_owned(),
        "block b(%x: f32[T], %x: f32[T]) {".to_owned(),
        "block b(%x: f32[T) {".to_owned(),
        "block b() { weight &w: f32[4] }".to_owned(),
        "block b() { state &s.1: f32[S] }".to_owned(),
        "block b() { table #0 = rope {theta: x} }".to_owned(),
        "block b() { return x = %0 }".to_owned(),
        "block b() { % }".to_owned(),
        "block b() { ! }".to_owned(),
        op("%0 = gelu(%x) : f32[T,4]"),
        op("%0 = relu2(%z) {dtype: f32} : f32[T,4]"),
        op("%0 = relu2(%x %x) {dtype: f32} : f32[T,4]"),
        op("%0 = relu2(%x, %x) {dtype: f32} : f32[T,4]"),
        op("%0 = causal_conv1d(%x) {dtype: f32} : f32[T,4]"),
        op("%0 = linear(%x, %x) {dtype: f32} : f32[T,4]"),
        op("%0 = relu2(4) {dtype: f32} : f32[T,4]"),
        op("%0 = relu2(%x, $token) {dtype: f32} : f32[T,4]"),
        op("%0 = relu2(%x) : f32[T,4]"),
        op("%0 = relu2(%x) {} : f32[T,4]"),
        op("%0 = relu2(%x) {dtype: f32, eps: 1} : f32[T,4]"),
        op("%0 = relu2(%x) {dtype: f32, dtype: f32} : f32[T,4]"),
        op("%0 = relu2(%x) {dtype: f64} : f32[T,4]"),
        op("%0 = relu2(%x) {dtype: f32} : bf16[T,4]"),
        op("%0, %1 = relu2(%x) {dtype: f32} : f32[T,4]"),
        op("%0 = slice(%x) {offset: 1, width: 4} : f32[T,4]"),
        op("%0 = slice(%x) {offset: -1, width: 4} : f32[T,4]"),
        op("%0 = causal_conv1d(%x, @w, &s) {dtype: f32} : f32[T,4]"),
        op("%x = relu2(%x) {dtype: f32} : f32[T,4]"),
        op("%0 = linear(%x, @w) {dtype: f32} : f32[T,4] }"),
    ];
    let block_errors = cases.iter().map(|text| parse_block(text).unwrap_err().to_string());
    let change = |from: &str, to: &str| {
        assert!(HYBRID.contains(from), "{from}");
        parse_program(&HYBRID.replacen(from, to, 1)).unwrap_err().to_string()
    };
    let program_errors = [
        change("program prefill", "program train"),
        change("block mlp", "block embed"),
        change("calls {", "call {"),
        change("  head\n", "  tail\n"),
        change("layers.{}.\"", "layers.\""),
        change("layers.{}.\"", "layers.{} \""),
        change("mlp 4-5", "mlp 5-4"),
        change("mlp 4-5", "mlp 4-4294967295"),
        change("mlp 4-5", "mlp 4294967296"),
        change("  head\n}", "  head\n"),
        change("  head\n}", "  head\n} calls"),
        parse_program(&" ".repeat((1 << 20) + 1)).unwrap_err().to_string(),
    ];
    insta::assert_snapshot!(block_errors.chain(program_errors).collect::<Vec<_>>().join("\n"));
}

/// One drawn op: which, of which values, and a number for its attribute.
type DrawnOp = (u8, usize, usize, u64);

/// A block of row-wise ops over earlier values of drawn types; whatever nothing uses is an output.
fn drawn_block(name: &str, ops: &[DrawnOp], width: u64, dtype: Dtype) -> Block {
    let mut b = BlockBuilder::new(name);
    let mut values = vec![b.input("x", Type::new(dtype, [Symbol::T.into(), (4 * width).into()]))];
    let mut used: Vec<Value> = Vec::new();
    for (index, (op, i, j, n)) in ops.iter().enumerate() {
        let pick = |i: &usize| values[i % values.len()];
        let (x, other) = (pick(i), pick(j));
        let ty = b.ty(x);
        let columns = ty.width().unwrap();
        let dtype = || Attr::Dtype([Dtype::F32, Dtype::Bf16, Dtype::F16][(n % 3) as usize]);
        let operands = match op % 6 {
            // Two values of one shape, where the other has it.
            0 if b.ty(other).shape == ty.shape => vec![x, other],
            1 => {
                let weight = Type::new(Dtype::Bf16, [(1 + n % 9).into(), columns.into()]);
                vec![x, b.weight(format!("layer.W-{index}"), weight)]
            }
            2 => vec![x, b.weight(format!("n{index}.weight"), Type::new(Dtype::F32, [columns.into()]))],
            4 if columns.is_multiple_of(2) => {
                let table =
                    RopeTable { theta: 1e4 + *n as f64 / 3.0, head_dim: 2, positions: 1 + n, scaling: None };
                vec![x, b.table(table)]
            }
            _ => vec![x],
        };
        let y = match (op % 6, &operands[..]) {
            (0, [_, _]) => b.op("swiglu", &operands, vec![dtype()]),
            (1, _) => b.op("linear", &operands, vec![dtype()]),
            (2, _) => {
                b.op("rms_norm", &operands, vec![(1.0 / (1 + n) as f64).into(), columns.into(), dtype()])
            }
            (3, _) => b.op("slice", &operands, vec![(n % columns).into(), (columns - n % columns).into()]),
            (4, [_, _]) => b.op("rope", &operands, vec![dtype()]),
            _ => b.op("relu2", &operands, vec![dtype()]),
        };
        values.push(y.unwrap());
        used.extend(operands);
    }
    let unused = values.into_iter().filter(|value| !used.contains(value));
    for (index, value) in unused.enumerate().collect::<Vec<_>>() {
        b.output(format!("y{index}"), value);
    }
    b.finish()
}

fn drawn_ops() -> impl Strategy<Value = (Vec<DrawnOp>, u64, Dtype)> {
    let op = (any::<u8>(), 0..64usize, 0..64usize, 0..1000u64);
    (prop::collection::vec(op, 1..24), 1..5u64, prop::sample::select(vec![Dtype::F32, Dtype::Bf16]))
}

fn drawn_calls(blocks: usize) -> impl Strategy<Value = Vec<Call>> {
    let prefix =
        prop::sample::select(vec!["", "model.layers.{}.", "model.layers.{}.", "{}", "a.{}.{}.", "b.7."]);
    let call = (0..blocks, prop::option::of(0..12u32), prefix).prop_map(|(block, layer, prefix)| Call {
        block,
        layer,
        prefix: prefix.replace("{}", &layer.unwrap_or(3).to_string()),
    });
    prop::collection::vec(call, 0..24)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn drawn_blocks_round_trip((ops, width, dtype) in drawn_ops()) {
        let block = drawn_block("drawn", &ops, width, dtype);
        prop_assert_eq!(verify_block(&block), Ok(()));
        let text = block.to_string();
        let read = parse_block(&text).map_err(|error| TestCaseError::fail(format!("{error}\n{text}")))?;
        prop_assert_eq!(read.to_string(), text);
        prop_assert_eq!(read, block);
    }

    #[test]
    fn drawn_programs_round_trip(
        drawn in prop::collection::vec(drawn_ops(), 0..3),
        calls in drawn_calls(5),
        decode: bool,
    ) {
        let mut program = parse_program(HYBRID).unwrap();
        program.phase = if decode { Phase::Decode } else { Phase::Prefill };
        program.calls = calls;
        program.blocks.extend((0..).zip(drawn).map(|(index, (ops, width, dtype)): (i32, _)| {
            drawn_block(&format!("layers{index}"), &ops, width, dtype)
        }));
        let text = program.to_string();
        let read = parse_program(&text).map_err(|error| TestCaseError::fail(format!("{error}\n{text}")))?;
        prop_assert_eq!(read.to_string(), text);
        prop_assert_eq!(read, program);
    }

    /// Whatever a text says, parser and verifier answer; and what parses prints to what parses.
    #[test]
    fn damaged_texts_never_panic(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..4u8), 1..4),
        noise in "[ -~é\n]{0,6}",
    ) {
        let mut text: Vec<char> = HYBRID.chars().collect();
        let other = text.clone();
        for (at, from, kind) in &edits {
            let at = at.index(text.len());
            let from = from.index(other.len() - 24);
            match kind {
                0 => drop(text.splice(at..at, noise.chars())),
                1 => drop(text.splice(at..text.len().min(at + 1 + from % 12), [])),
                2 => drop(text.splice(at..at, other[from..from + 24].iter().copied())),
                _ => text.truncate(at.max(1)),
            }
        }
        let text: String = text.into_iter().collect();
        if let Ok(program) = parse_program(&text) {
            let _ = verify_program(&program);
            assert_prints_to_itself(&program);
        }
    }

    #[test]
    fn arbitrary_texts_never_panic(text in "\\PC{0,80}", tokens in prop::collection::vec(
        prop::sample::select(vec!["block", "b", "(", ")", "{", "}", "%x", ":", "f32", "[", "]", "T", "2", ",", "=",
            "&s", "@w", "#0", "$rows", "state", "weight", "table", "rope", "return", "relu2", "dtype", "-", "1e400",
            "\"", "//", "program", "prefill", "calls", "layers", "\"{}\"", "inf"]), 0..40)) {
        let _ = parse_program(&text);
        let _ = parse_block(&tokens.join(" "));
        let _ = parse_program(&tokens.concat());
    }
}

#[track_caller]
fn assert_prints_to_itself(program: &Program) {
    let text = program.to_string();
    let read = parse_program(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    assert_eq!(read.to_string(), text);
}
