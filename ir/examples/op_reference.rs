//! Prints the op reference: `cargo run -p nemo-ir --example op_reference > docs/ops.md`.

fn main() {
    print!("{}", nemo_ir::reference::op_reference());
}
