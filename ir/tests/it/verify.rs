//! The verifier: each rule broken once.

use nemo_ir::graph::{Block, BlockBuilder, Edge, Node, Program, Value};
use nemo_ir::ops::Attr;
use nemo_ir::step::StepInput;
use nemo_ir::text::{parse_block, parse_program};
use nemo_ir::types::{Dtype, Symbol, Type};
use nemo_ir::verify::{VerifyError, verify_block, verify_program};
use petgraph::graph::NodeIndex;

const HYBRID: &str = include_str!("hybrid.txt");

/// All messages about a block, one a line.
#[track_caller]
fn messages(what: &str, result: Result<(), Vec<VerifyError>>) -> String {
    let errors = result.expect_err(what);
    let lines: Vec<_> = errors.iter().map(|error| format!("  {error}")).collect();
    format!("{what}:\n{}\n", lines.join("\n"))
}

/// Conv states and the ops that touch them.
fn conv(body: &str) -> Block {
    let text = format!(
        "block b(%x: f32[T,1]) {{
            state &s: f32[S,1,1]
            weight @w: f32[1,2]
            {body}
        }}"
    );
    parse_block(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// A cache, an append and reads of it.
fn cache(body: &str) -> Block {
    let text = format!(
        "block b(%q: f32[T,1]) {{
            state &kv: f32[N,2,1,64,1]
            {body}
        }}"
    );
    parse_block(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

#[test]
fn rules_of_state() {
    let two_writers = conv(
        "%0, &s.1 = causal_conv1d(%x, @w, &s) {dtype: f32} : f32[T,1], f32[S,1,1]
        %1, &s.2 = causal_conv1d(%0, @w, &s) {dtype: f32} : f32[T,1], f32[S,1,1]
        return y = %1",
    );
    let unordered = cache(
        "&kv.1 = kv_append(%q, %q, &kv) : f32[N,2,1,64,1]
        %0 = paged_attention(%q, &kv) {scale: 1.0, window: 0, dtype: f32} : f32[T,1]
        return y = %0",
    );
    let state_as_output = cache("&kv.1 = kv_append(%q, %q, &kv) : f32[N,2,1,64,1] return y = %q, kv = &kv.1");
    let untouched = cache("return y = %q");
    insta::assert_snapshot!(
        [
            messages("two writers", verify_block(&two_writers)),
            messages("a read beside the write", verify_block(&unordered)),
            messages("a state as output", verify_block(&state_as_output)),
            messages("a state that nothing touches", verify_block(&untouched)),
        ]
        .concat()
    );
}

#[test]
fn legal_uses_of_state() {
    let chain = conv(
        "%0, &s.1 = causal_conv1d(%x, @w, &s) {dtype: f32} : f32[T,1], f32[S,1,1]
        %1, &s.2 = causal_conv1d(%0, @w, &s.1) {dtype: f32} : f32[T,1], f32[S,1,1]
        return y = %1",
    );
    assert_eq!(verify_block(&chain), Ok(()));
    // The append depends on what was read, so it comes after the read.
    let ordered = cache(
        "%0 = paged_attention(%q, &kv) {scale: 1.0, window: 0, dtype: f32} : f32[T,1]
        &kv.1 = kv_append(%0, %q, &kv) : f32[N,2,1,64,1]
        return y = %0",
    );
    assert_eq!(verify_block(&ordered), Ok(()));
}

fn matrix(width: u64) -> Type {
    Type::new(Dtype::F32, [Symbol::T.into(), width.into()])
}

/// `y = relu2(x)`, to be damaged.
fn small() -> (BlockBuilder, Value, Value) {
    let mut b = BlockBuilder::new("b");
    let x = b.input("x", matrix(2));
    let y = b.op("relu2", &[x], vec![Attr::Dtype(Dtype::F32)]).unwrap();
    (b, x, y)
}

#[test]
fn rules_of_blocks() {
    let mut found = Vec::new();
    let mut refuse = |what: &str, block: &Block| {
        found.push(messages(what, verify_block(block)));
        // Whatever is wrong with it, a block can be printed.
        assert!(block.to_string().starts_with("block "));
    };
    let built = |finish: &dyn Fn(&mut BlockBuilder, Value, Value)| {
        let (mut b, x, y) = small();
        finish(&mut b, x, y);
        b.finish()
    };
    refuse("nothing given", &built(&|_, _, _| {}));
    refuse("names", &{
        let mut b = BlockBuilder::new("Block");
        let x = b.input("X", matrix(2));
        b.output("2", x);
        b.output("2", x);
        let w = b.weight("a b", Type::new(Dtype::F32, [2.into(), 2.into()]));
        let y = b.op("linear", &[x, w], vec![Attr::Dtype(Dtype::F32)]).unwrap();
        b.output("y", y);
        b.finish()
    });
    refuse(
        "two inputs of one name",
        &built(&|b, _, y| {
            let other = b.input("x", matrix(3));
            b.output("y", y);
            b.output("z", other);
        }),
    );
    refuse(
        "unused values",
        &built(&|b, x, _| {
            b.weight("w", Type::new(Dtype::F32, [2.into()]));
            b.step(StepInput::Rows);
            b.output("x", x);
        }),
    );
    refuse(
        "leaf types",
        &built(&|b, _, y| {
            let x = b.input("pages", Type::new(Dtype::F32, [Symbol::N.into()]));
            b.state("s", matrix(2));
            b.weight("w", matrix(2));
            b.output("x", x);
            b.output("y", y);
        }),
    );
    refuse(
        "a weight as output",
        &built(&|b, _, y| {
            b.output("y", y);
            let w = b.weight("w", Type::new(Dtype::F32, [2.into()]));
            b.output("w", w);
            b.output("nothing", Value { node: NodeIndex::new(77), result: 0 });
        }),
    );
    refuse(
        "kinds",
        &built(&|b, x, y| {
            let w = b.weight("w", Type::new(Dtype::F32, [2.into(), 2.into()]));
            let y = b.op("add", &[y, x], vec![Attr::Dtype(Dtype::F32)]).unwrap();
            let z = b.op("linear", &[w, w], vec![Attr::Dtype(Dtype::F32)]).unwrap();
            let rows = b.step(StepInput::Tokens);
            let g = b.op("gather_rows", &[y, rows], vec![]).unwrap();
            b.output("z", z);
            b.output("g", g);
        }),
    );
    refuse(
        "no number",
        &built(&|b, _, y| {
            let w = b.weight("w", Type::new(Dtype::F32, [2.into()]));
            let attrs = vec![Attr::Float(f64::NAN), Attr::Int(2), Attr::Dtype(Dtype::F32)];
            let y = b.op("rms_norm", &[y, w], attrs).unwrap();
            b.output("y", y);
        }),
    );

    let legal = built(&|b, _, y| b.output("y", y));
    assert_eq!(verify_block(&legal), Ok(()));
    let (x, y) = (NodeIndex::new(0), NodeIndex::new(1));
    let damaged = |damage: &dyn Fn(&mut Block)| {
        let mut block = legal.clone();
        damage(&mut block);
        block
    };
    refuse(
        "a cycle",
        &damaged(&|block| {
            block.graph.clear_edges();
            block.graph.add_edge(y, y, Edge { result: 0, operand: 0 });
        }),
    );
    refuse(
        "an operand twice",
        &damaged(&|block| {
            block.graph.add_edge(x, y, Edge { result: 0, operand: 0 });
        }),
    );
    refuse(
        "a result that is not there",
        &damaged(&|block| {
            block.graph.clear_edges();
            block.graph.add_edge(x, y, Edge { result: 1, operand: 0 });
        }),
    );
    refuse(
        "an input with an operand",
        &damaged(&|block| {
            let other = block.graph.add_node(Node::Input { name: "z".to_owned(), ty: matrix(2) });
            block.graph.add_edge(y, other, Edge { result: 0, operand: 0 });
        }),
    );
    refuse("too few operands", &damaged(&|block| block.graph.clear_edges()));
    refuse(
        "declared types",
        &damaged(&|block| {
            let Node::Op { results, .. } = &mut block.graph[y] else { panic!("y is an op") };
            results[0] = matrix(3);
        }),
    );
    refuse(
        "attributes of another op",
        &damaged(&|block| {
            let Node::Op { attrs, .. } = &mut block.graph[y] else { panic!("y is an op") };
            attrs.push(Attr::Int(1));
        }),
    );
    insta::assert_snapshot!(found.concat());
}

#[test]
fn rules_of_programs() {
    let program = || parse_program(HYBRID).unwrap();
    let mut found = Vec::new();
    let mut refuse = |what: &str, change: &dyn Fn(&mut Program)| {
        let mut program = program();
        change(&mut program);
        found.push(messages(what, verify_program(&program)));
        assert!(program.to_string().starts_with("program "));
    };
    refuse("no calls", &|program| program.calls.clear());
    refuse("nothing before", &|program| drop(program.calls.remove(0)));
    refuse("another type before", &|program| {
        let text = "block embed() {
            weight @embed.weight: bf16[32,16]
            %0 = embed(@embed.weight) {dtype: f32} : f32[T,16]
            return x = %0
        }";
        program.blocks[0] = parse_block(text).unwrap();
    });
    refuse("a block twice", &|program| {
        let embed = program.blocks[0].clone();
        program.blocks.push(embed);
    });
    refuse("a block that is not there", &|program| program.calls[2].block = 5);
    refuse("no layer for the state", &|program| program.calls[1].layer = None);
    refuse("one state for two", &|program| program.calls[3].layer = Some(0));
    refuse("a prefix", &|program| program.calls[2].prefix = "layers 1.".to_owned());
    refuse("one weight of two types", &|program| {
        program.calls[2].prefix = program.calls[1].prefix.clone() + "mixer.";
    });
    insta::assert_snapshot!(found.concat());
}
