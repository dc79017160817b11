use nemo_ir::step::StepDims;

use super::*;

const BOUNDS: Bounds = Bounds {
    vocab: 100,
    max_context: 128,
    tokens: 8,
    seqs: 2,
    decode_seqs: 2,
    slots: 2,
    pages: 4,
    pages_per_seq: 2,
};

/// Two sequences: two tokens of a new one, one more of another at position 64.
fn mixed() -> Step<'static> {
    Step {
        phase: None,
        tokens: &[5, 6, 7],
        positions: &[0, 1, 64],
        seq_start: &[0, 2, 3],
        slot_in: &[-1, 1],
        slot_out: &[0, 1],
        context: &[0, 64],
        pages: &[0, -1, 2, 3],
        rows: &[1, 2],
        forced: &[-1, 9],
        temperature: &[0.0, 0.6],
        top_k: &[0, 50],
        top_p: &[1.0, 0.95],
        min_p: &[0.0, 0.05],
        seed: &[[0, 0], [1, 2]],
    }
}

fn single() -> Step<'static> {
    Step {
        tokens: &[5],
        positions: &[1],
        seq_start: &[0, 1],
        slot_in: &[0],
        slot_out: &[0],
        context: &[1],
        pages: &[0, -1],
        rows: &[0],
        forced: &[-1],
        temperature: &[0.0],
        top_k: &[0],
        top_p: &[1.0],
        min_p: &[0.0],
        seed: &[[0, 0]],
        ..Step::default()
    }
}

/// The program and the dims; whatever comes out, the set of pages is empty afterwards.
fn check(step: &Step<'_>) -> Result<(Phase, StepDims), StepError> {
    let mut written = Written::new(&BOUNDS);
    let checked = step.check(&BOUNDS, &mut written).map(|checked| (checked.phase(), checked.dims()));
    assert!(written.is_empty());
    checked
}

#[test]
fn the_program_follows_from_the_shape_unless_overridden() {
    let phase = |step: Step<'_>| check(&step).map(|(phase, _)| phase);
    assert_eq!(phase(mixed()), Ok(Phase::Prefill));
    assert_eq!(phase(single()), Ok(Phase::Decode));
    assert_eq!(phase(Step { phase: Some(Phase::Prefill), ..single() }), Ok(Phase::Prefill));
    assert_eq!(phase(Step { rows: &[], ..single() }), Ok(Phase::Prefill));
    let forced = phase(Step { phase: Some(Phase::Decode), ..mixed() }).unwrap_err().to_string();
    assert_eq!(forced, "the decode program cannot run this step: a sequence has more than one token");
    let (_, dims) = check(&mixed()).unwrap();
    assert_eq!(dims, StepDims { tokens: 3, seqs: 2, rows: 2, pages: 2 });
}

#[test]
fn padding_carries_no_slot_and_no_page() {
    let step = Step { slot_in: &[-1], slot_out: &[-1], context: &[0], pages: &[-1, -1], ..single() };
    check(&step).unwrap();
}

#[test]
fn every_fault_has_its_sentence() {
    let cases: &[(Step<'_>, &str)] = &[
        (Step::default(), "at least one sequence"),
        (Step { tokens: &[0; 9], ..mixed() }, "the step has 9 tokens, but the engine's steps hold at most 8"),
        (Step { slot_in: &[0; 3], ..mixed() }, "the step has 3 sequences"),
        (Step { positions: &[0], ..mixed() }, "`positions` has 1 elements, but 3 are wanted"),
        (Step { pages: &[0], ..mixed() }, "`pages` has 1 elements, but 4 are wanted"),
        (Step { tokens: &[5, 100, 7], ..mixed() }, "`tokens`, element 1: 100 is not in 0..100"),
        (Step { tokens: &[5, -1, 7], ..mixed() }, "`tokens`, element 1: -1 is not in 0..100"),
        (Step { positions: &[0, 1, 128], ..mixed() }, "`positions`, element 2: 128 is not in 0..128"),
        (Step { seq_start: &[0, 0, 3], ..mixed() }, "each at least one token"),
        (Step { seq_start: &[1, 2, 3], ..mixed() }, "`seq_start`, element 0: 1 is not 0"),
        (Step { seq_start: &[0, 2, 4], ..mixed() }, "`seq_start`, element 2: 4 is not 3"),
        (Step { slot_in: &[-2, 1], ..mixed() }, "`slot_in`, element 0: -2 is not in -1..2"),
        (Step { slot_out: &[0, 2], ..mixed() }, "`slot_out`, element 1: 2 is not in -1..2"),
        (Step { slot_out: &[1, 1], ..mixed() }, "sequences 0 and 1 of the step share state slot 1"),
        (Step { slot_out: &[1, -1], ..mixed() }, "share state slot 1, which one of them writes"),
        (Step { context: &[0, 128], ..mixed() }, "sequence 1 would have 129 tokens"),
        (Step { context: &[-1, 1], ..mixed() }, "`context`, element 0: -1 is not at least 0"),
        (Step { pages: &[0, -1, 2, 4], ..mixed() }, "`pages`, element 3: 4 is not a page below 4"),
        (Step { pages: &[0, -1, 2, -1], ..mixed() }, "`pages`, element 3: -1 is not a page below 4"),
        (Step { rows: &[3], ..mixed() }, "`rows`, element 0: 3 is not in 0..3"),
        (Step { rows: &[1, 1], ..mixed() }, "`rows`, element 1: 1 is not above 1"),
        (Step { forced: &[-1, 100], ..mixed() }, "`forced`, element 1: 100 is not in -1..100"),
        (Step { temperature: &[f32::NAN, 0.0], ..mixed() }, "`temperature`, element 0: NaN"),
        (Step { top_k: &[-1, 0], ..mixed() }, "`top_k`, element 0: -1"),
        (Step { top_p: &[0.0, 1.0], ..mixed() }, "`top_p`, element 0: 0 is not above 0"),
        (Step { min_p: &[0.0, 1.5], ..mixed() }, "`min_p`, element 1: 1.5 is not between 0 and 1"),
    ];
    for (step, wanted) in cases {
        let message = check(step).unwrap_err().to_string();
        assert!(message.contains(wanted), "wanted {wanted:?}, got {message:?}");
    }
}

/// Two sequences with these contexts, lengths and tables; greedy, in their own slots.
fn paged(context: [i32; 2], length: [i32; 2], pages: [i32; 4]) -> Result<(), String> {
    let tokens = (length[0] + length[1]) as usize;
    let step = Step {
        tokens: &vec![5; tokens],
        positions: &vec![0; tokens],
        seq_start: &[0, length[0], length[0] + length[1]],
        context: &context,
        pages: &pages,
        slot_in: &[0, 1],
        rows: &[],
        forced: &[-1, -1],
        ..mixed()
    };
    check(&step).map(|_| ()).map_err(|error| error.to_string())
}

#[test]
fn a_page_that_is_written_is_nowhere_else() {
    // A whole page before both contexts is read by both.
    assert_eq!(paged([64, 64], [2, 1], [0, 1, 0, 2]), Ok(()));
    assert_eq!(paged([64, 70], [2, 1], [0, 1, 0, 2]), Ok(()));
    // What stands behind the pages in use is nobody's.
    assert_eq!(paged([0, 64], [2, 1], [0, 3, 1, 3]), Ok(()));
    let again = |page: i32, first: usize, second: usize| {
        Err(format!(
            "KV page {page}, which sequence {first} of the step writes, is there again for sequence {second}"
        ))
    };
    // Written by both, read by the other, read and written by one, written twice by one.
    assert_eq!(paged([64, 64], [2, 1], [0, 1, 2, 1]), again(1, 0, 1));
    assert_eq!(paged([0, 64], [2, 1], [0, -1, 0, 2]), again(0, 0, 1));
    assert_eq!(paged([64, 0], [2, 1], [0, 1, 0, -1]), again(0, 1, 0));
    assert_eq!(paged([0, 64], [2, 1], [0, -1, 2, 2]), again(2, 1, 1));
    assert_eq!(paged([63, 0], [2, 1], [3, 3, 1, -1]), again(3, 0, 0));
    assert_eq!(paged([63, 0], [2, 1], [3, 2, 2, -1]), again(2, 0, 1));
}

#[test]
fn padding_has_nothing_at_all() {
    let padding = Step { slot_in: &[-1], slot_out: &[-1], context: &[0], pages: &[-1, -1], ..single() };
    let wanted = "sequence 0 of the step has no KV page for its tokens";
    for step in [Step { slot_out: &[0], ..padding }, Step { pages: &[-1, 2], ..padding }] {
        let message = check(&step).unwrap_err().to_string();
        assert!(message.starts_with(wanted), "{message}");
    }
    // Without a paged state there are no pages, and tables mean nothing.
    let plain = Bounds { pages: 0, ..BOUNDS };
    Step { slot_out: &[0], ..padding }.check(&plain, &mut Written::new(&plain)).unwrap();
}
