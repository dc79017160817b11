//! Work space on the stack.

use nemo_ir::step::StepInput;
use nemo_ir::types::{Dtype, Symbol, Type};
use nemo_kernels::spec::{KernelSpec, Layout};

use super::targets;

#[test]
fn work_space_beyond_the_stack_is_refused() {
    use nemo_kernels::host::{Listings, compile};
    // A state as large as the scan allows, of the shape that takes the most room beside it.
    let (heads, head_dim, state) = (2u64, 4u64, 16384u64);
    let matrix = |width: u64| Layout::dense(Type::new(Dtype::F32, [Symbol::T.into(), width.into()]));
    let vector = || Layout::dense(Type::new(Dtype::F32, [heads.into()]));
    let ints = |input: StepInput| Layout::dense(input.ty());
    let ssm = Type::new(Dtype::F32, [Symbol::S.into(), heads.into(), state.into(), head_dim.into()]);
    let spec = KernelSpec {
        op: nemo_ir::ops::op("ssd_chunked").expect("the table has it"),
        attrs: vec![heads.into(), 1.into(), 64.into(), Dtype::F32.into()],
        operands: vec![
            matrix(heads * head_dim),
            matrix(heads),
            matrix(state),
            matrix(state),
            vector(),
            vector(),
            Layout::dense(ssm),
            ints(StepInput::SeqStart),
            ints(StepInput::SlotIn),
            ints(StepInput::SlotOut),
        ],
        results: vec![matrix(heads * head_dim)],
        steps: None,
        form: None,
    };
    for target in targets() {
        let error = compile(&target, &[("k".to_owned(), spec.clone())], Listings::default()).unwrap_err();
        assert!(error.to_string().contains("bytes of stack"), "{error}");
    }
}
